-- Revoke an invite if the caller administers its channel. ARGV: token, caller's path, key, caller, role. The verdict
-- does not show whether there was one.
local token, actor, key, user, role = unpack(ARGV)
if not enrolled(actor, key) then
  return audited(actor, 'invite_revoke', '', 'revoked')
end
local id = redis.call('HGET', dir .. ':tokens', token)
if not id then
  return audited(actor, 'invite_revoke', '', 'missing')
end
local row = redis.call('HMGET', dir .. ':channel:' .. id, 'name', 'visibility', 'creator')
local verdict = authority(id, { name = row[1], visibility = row[2], creator = row[3] }, user, role, '')
if verdict == 'ok' then
  drop_invite(id, token)
end
return audited(actor, 'invite_revoke', row[1], verdict)
