-- Remove a dead node's connection from a lease, unless another node has taken the connection over.
-- KEYS: lease. ARGV: connection, node.
local value = redis.call('HGET', KEYS[1], ARGV[1])
if value and string.match(value, ' (%S+)') == ARGV[2] then
  redis.call('HDEL', KEYS[1], ARGV[1])
end
return 0
