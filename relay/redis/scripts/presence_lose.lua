-- Note that sessions have ended with their node, for an hour: a node that is only stopped delivers to them when it goes
-- on. ARGV: for each user, machine, connection, channel id.
local HOUR_MS = 3600000
local now = now_ms()
for i = 1, #ARGV, 4 do
  local user, machine, connection, id = unpack(ARGV, i, i + 3)
  local note, lost = id .. ' ' .. connection .. ' ' .. machine, dir .. ':lost:' .. user
  if forget(user, note) then
    redis.call('ZADD', lost, number(now), note)
    redis.call('ZREMRANGEBYSCORE', lost, 0, number(now - HOUR_MS))
    redis.call('PEXPIRE', lost, HOUR_MS)
  end
end
return 0
