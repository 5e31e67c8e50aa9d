-- Revoke a machine's key. ARGV: user, machine. Answers 1 if there was one.
local row = redis.call('HGET', dir .. ':machines:' .. ARGV[1], ARGV[2])
if not row then
  return 0
end
redis.call('HDEL', dir .. ':machines:' .. ARGV[1], ARGV[2])
redis.call('HDEL', dir .. ':keys', string.match(row, '^%S+'))
return 1
