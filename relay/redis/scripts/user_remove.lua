-- Remove a user with created channels, memberships, roles, bans, machines and the name.
-- ARGV: caller's path, key, role, user. Returns a verdict and the pending announcements.
local actor, own_key, role, user = unpack(ARGV)
if not enrolled(actor, own_key) then
  return with_due(audited(actor, 'user_remove', user, 'revoked'))
end
if role ~= 'admin' then
  return with_due(audited(actor, 'user_remove', user, 'denied'))
end
for _, id in ipairs(redis.call('SMEMBERS', dir .. ':created:' .. user)) do
  local name = redis.call('HGET', dir .. ':channel:' .. id, 'name')
  drop_channel(id, { name = name, creator = user })
end
for _, id in ipairs(redis.call('SMEMBERS', dir .. ':member:' .. user)) do
  drop_member(id, user)
end
for _, id in ipairs(redis.call('SMEMBERS', dir .. ':administers:' .. user)) do
  redis.call('SREM', dir .. ':admins:' .. id, user)
end
for _, id in ipairs(redis.call('SMEMBERS', dir .. ':banned:' .. user)) do
  redis.call('SREM', dir .. ':bans:' .. id, user)
end
local machines = redis.call('HGETALL', dir .. ':machines:' .. user)
for i = 1, #machines, 2 do
  local key = string.match(machines[i + 1], '^%S+')
  redis.call('HDEL', dir .. ':keys', key)
  owe('key:' .. key, 'user_removed')
end
change_joined(user)
redis.call('HDEL', dir .. ':users', user)
redis.call('DEL', dir .. ':machines:' .. user, dir .. ':administers:' .. user, dir .. ':banned:' .. user,
  dir .. ':joined:' .. user, dir .. ':in:' .. user, dir .. ':lost:' .. user)
return with_due(audited(actor, 'user_remove', user, 'ok'))
