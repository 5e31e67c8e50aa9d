-- Declare a node dead unless it has sent a heartbeat since. KEYS: nodes. ARGV: node, last heartbeat seen. Returns 1 if
-- so.
local last = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not last or (tonumber(last) >= 0 and tonumber(last) ~= tonumber(ARGV[2])) then
  return 0
end
redis.call('ZADD', KEYS[1], -1, ARGV[1])
return 1
