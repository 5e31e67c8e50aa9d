-- Claim a username with its first machine, or neither.
-- ARGV: user, machine, public key. Answers: 'ok', 'taken', 'enrolled'.
local user, machine, key = ARGV[1], ARGV[2], ARGV[3]
if redis.call('HEXISTS', dir .. ':users', user) == 1 then
  return 'taken'
end
if redis.call('HEXISTS', dir .. ':keys', key) == 1 then
  return 'enrolled'
end
local now = number(now_ms())
redis.call('HSET', dir .. ':users', user, now)
redis.call('HSET', dir .. ':keys', key, user .. '/' .. machine)
redis.call('HSET', dir .. ':machines:' .. user, machine, key .. ' ' .. now)
return 'ok'
