-- Add a key to an existing account. ARGV: user, machine, public key.
-- Answers: 'ok', 'gone' (no such user), 'named' (the user has a machine of that name), 'enrolled' (the key is in use).
local user, machine, key = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HEXISTS', dir .. ':users', user) == 0 then
  return 'gone'
end
if redis.call('HEXISTS', dir .. ':machines:' .. user, machine) == 1 then
  return 'named'
end
if redis.call('HEXISTS', dir .. ':keys', key) == 1 then
  return 'enrolled'
end
redis.call('HSET', dir .. ':keys', key, user .. '/' .. machine)
redis.call('HSET', dir .. ':machines:' .. user, machine, key .. ' ' .. number(now_ms()))
return 'ok'
