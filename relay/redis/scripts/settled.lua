-- A debt of announcement was paid, unless something was added to it meanwhile. ARGV: field, what was paid.
if redis.call('HGET', dir .. ':due', ARGV[1]) == ARGV[2] then
  redis.call('HDEL', dir .. ':due', ARGV[1])
end
return 0
