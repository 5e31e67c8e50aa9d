-- Create a channel with its creator as a member. ARGV: caller's path, key, id, name, visibility, user.
-- Returns 'ok', 'taken' or 'revoked'.
local actor, key, id, name, visibility, user = unpack(ARGV)
if not enrolled(actor, key) then
  return audited(actor, 'create_channel', name, 'revoked')
end
if redis.call('HSETNX', dir .. ':names', name, id) == 0 then
  return audited(actor, 'create_channel', name, 'taken')
end
redis.call('HSET', dir .. ':channel:' .. id,
  'name', name, 'visibility', visibility, 'creator', user, 'created', number(now_ms()), 'version', 0)
redis.call('SADD', dir .. ':created:' .. user, id)
if visibility == 'public' then
  redis.call('SADD', dir .. ':listed', id)
end
add_member(id, user)
return audited(actor, 'create_channel', name, 'ok')
