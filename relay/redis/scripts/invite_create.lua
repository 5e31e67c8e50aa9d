-- Mint an invite. ARGV: name, caller, role, inside, token, uses ('-' for any number), seconds to live ('-' for ever).
-- Answers: 'ok', 'denied', 'missing'.
local id, row = find(ARGV[1])
local verdict = authority(id, row, ARGV[2], ARGV[3], ARGV[4])
if verdict ~= 'ok' then
  return verdict
end
local token, uses, seconds = ARGV[5], ARGV[6], ARGV[7]
local now, expires = now_ms(), '-'
-- Those that expired unused make room here, a few at a time.
for _, old in ipairs(redis.call('ZRANGEBYSCORE', dir .. ':expiring', '-inf', now, 'LIMIT', 0, 20)) do
  drop_invite(redis.call('HGET', dir .. ':tokens', old) or '', old)
end
if seconds ~= '-' then
  expires = number(now + tonumber(seconds) * 1000)
  redis.call('ZADD', dir .. ':expiring', expires, token)
end
redis.call('HSET', dir .. ':invites:' .. id, token, uses .. ' ' .. expires)
redis.call('HSET', dir .. ':tokens', token, id)
return 'ok'
