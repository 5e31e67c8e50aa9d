-- The nodes that are alive. KEYS: nodes. ARGV: greatest age of the last heartbeat (ms), or '' for any age.
if ARGV[1] == '' then
  return redis.call('ZRANGEBYSCORE', KEYS[1], 0, '+inf')
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
return redis.call('ZRANGEBYSCORE', KEYS[1], string.format('%.0f', now - tonumber(ARGV[1])), '+inf')
