-- Reserve the idempotency key of a whisper. KEYS: the key that remembers it. ARGV: id, the time to remember it (ms).
-- Returns {id, time (ms), '1' if it was sent} of the whisper that reserved it first.
local kept = redis.call('GET', KEYS[1])
if not kept then
  local time = redis.call('TIME')
  kept = ARGV[1] .. ' ' .. string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000)) .. ' 0'
  redis.call('SET', KEYS[1], kept, 'PX', ARGV[2])
end
local id, ms, sent = string.match(kept, '^(%S+) (%S+) (%S+)')
return { id, ms, sent }
