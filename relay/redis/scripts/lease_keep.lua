-- Write again that a connection holds its path, after Redis or the node was away. KEYS: lease.
-- ARGV: connection, node, generation. Returns 0 if a later connection holds the path.
local holders = redis.call('HGETALL', KEYS[1])
for i = 1, #holders, 2 do
  if holders[i] ~= ARGV[1] and tonumber(string.match(holders[i + 1], '^%d+') or '0') > tonumber(ARGV[3]) then
    redis.call('HDEL', KEYS[1], ARGV[1])
    return 0
  end
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. ' ' .. ARGV[2])
return 1
