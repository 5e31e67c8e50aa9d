-- Take a session path for a connection; whoever holds it already is superseded. KEYS: lease. ARGV: connection, node.
-- Answers {generation, {connection, 'generation node', ...}}: the earlier holders, who have to be told. They stay in
-- the lease until they are gone, so a taker that dies before telling them leaves that to the next one.
-- Generations follow the clock, so they keep growing after a lease was empty.
local time = redis.call('TIME')
local generation = time[1] * 1000000 + time[2]
local holders = redis.call('HGETALL', KEYS[1])
for i = 2, #holders, 2 do
  generation = math.max(generation, tonumber(string.match(holders[i], '^%d+')) + 1)
end
generation = string.format('%.0f', generation)
redis.call('HSET', KEYS[1], ARGV[1], generation .. ' ' .. ARGV[2])
return { generation, holders }
