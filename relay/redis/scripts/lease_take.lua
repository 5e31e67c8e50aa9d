-- Take a session path for a connection; an earlier holder is superseded. KEYS: lease. ARGV: connection, node.
-- Returns {generation, {connection, 'generation node', ...}}: the earlier holders, which have to be signalled. They
-- stay in the lease until their connections have ended, so if this taker dies before it has sent the signals, the next
-- one does. Generations follow the clock, so they grow even after a lease was empty.
local time = redis.call('TIME')
local generation = time[1] * 1000000 + time[2]
local holders = redis.call('HGETALL', KEYS[1])
for i = 2, #holders, 2 do
  generation = math.max(generation, tonumber(string.match(holders[i], '^%d+') or '0') + 1)
end
generation = string.format('%.0f', generation)
redis.call('HSET', KEYS[1], ARGV[1], generation .. ' ' .. ARGV[2])
return { generation, holders }
