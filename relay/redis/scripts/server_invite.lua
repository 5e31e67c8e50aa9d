-- Create an invite to the server.
-- ARGV: caller's path, key, role, token, uses ('-' for any number), seconds ('-' for ever). Returns 'ok', 'denied' or
-- 'revoked'.
local actor, key, role, token, uses, seconds = unpack(ARGV)
if not enrolled(actor, key) then
  return audited(actor, 'server_invite_create', '', 'revoked')
end
if role ~= 'admin' then
  return audited(actor, 'server_invite_create', '', 'denied')
end
local now = now_ms()
local invites = redis.call('HGETALL', dir .. ':server-invites')
for i = 1, #invites, 2 do
  local expires = string.match(invites[i + 1], '(%S+)$')
  if expires ~= '-' and tonumber(expires) <= now then
    redis.call('HDEL', dir .. ':server-invites', invites[i])
  end
end
redis.call('HSET', dir .. ':server-invites', token,
  uses .. ' ' .. (seconds == '-' and '-' or number(now + tonumber(seconds) * 1000)))
return audited(actor, 'server_invite_create', '', 'ok')
