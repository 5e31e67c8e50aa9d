-- Revoke the key of a machine: one of the caller's, or any for an admin of the server.
-- ARGV: caller's path, key, caller, role, user, machine. Returns a verdict and the pending announcements.
local actor, own_key, caller, role, user, machine = unpack(ARGV)
local target = user .. '/' .. machine
if not enrolled(actor, own_key) then
  return with_due(audited(actor, 'machine_remove', target, 'revoked'))
end
if caller ~= user and role ~= 'admin' then
  return with_due(audited(actor, 'machine_remove', target, 'denied'))
end
local row = redis.call('HGET', dir .. ':machines:' .. user, machine)
if not row then
  return with_due(audited(actor, 'machine_remove', target, 'ok'))
end
local key = string.match(row, '^%S+')
redis.call('HDEL', dir .. ':machines:' .. user, machine)
redis.call('HDEL', dir .. ':keys', key)
owe('key:' .. key, 'revoked')
change_joined(user, machine)
return with_due(audited(actor, 'machine_remove', target, 'ok'))
