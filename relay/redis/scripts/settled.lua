-- Remove a pending announcement that was made, unless another took its place. ARGV: subject, announcement.
if redis.call('HGET', dir .. ':due', ARGV[1]) == ARGV[2] then
  redis.call('HDEL', dir .. ':due', ARGV[1])
end
return 0
