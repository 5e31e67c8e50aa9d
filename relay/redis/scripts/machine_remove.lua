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
for _, id in ipairs(redis.call('SMEMBERS', dir .. ':joined:' .. user)) do
  if redis.call('EXISTS', dir .. ':channel:' .. id) == 1 then
    change(id)
  end
end
return with_due(audited(actor, 'machine_remove', target, 'ok'))
