-- Create a channel, its creator a member. ARGV: id, name, visibility, user. Answers: 'ok', 'taken', 'gone' (no such user).
local id, name, visibility, user = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
if redis.call('HEXISTS', dir .. ':users', user) == 0 then
  return 'gone'
end
if redis.call('HSETNX', dir .. ':names', name, id) == 0 then
  return 'taken'
end
redis.call('HSET', dir .. ':channel:' .. id,
  'name', name, 'visibility', visibility, 'creator', user, 'created', number(now_ms()))
if visibility == 'public' then
  redis.call('SADD', dir .. ':listed', id)
end
add_member(id, user)
return 'ok'
