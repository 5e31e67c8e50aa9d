-- A heartbeat of a node. KEYS: nodes. ARGV: node, '1' to join the cluster.
-- Returns false if the node is not in the cluster, or was declared dead; else {now (ms), {node, last heartbeat, ...}}.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ARGV[2] ~= '1' and (not last or tonumber(last) < 0) then
  return false
end
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
return { now, redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES') }
