-- Append a message to a channel's log and publish it with the id of its predecessor. KEYS: log, head, live; and, for a
-- message with an idempotency key, the key that remembers it.
-- ARGV: from, payload, most messages kept, longest time kept (ms), most messages and most bytes in one millisecond, the
-- membership version that the sender's node has applied, the time for which an idempotency key is
-- remembered (ms), the trace of the post, or ''. A trace is published after the version.
-- Returns the id of the message, or of the first one under its idempotency key; false if the channel was deleted; or a
-- later version, a number: the node has to apply it before it repeats the post.
--
-- The id is Redis' clock in milliseconds and a count. It never goes back. A millisecond with as many messages as a page
-- of history may have beyond its size is full, and the next message gets the next one, so a client that knows only
-- milliseconds can read every message (docs/decisions/0004).
local from, payload = ARGV[1], ARGV[2]
local head = redis.call('HMGET', KEYS[2], 'tip', 'weight', 'gone', 'version')
if head[3] then
  return false
end
local version = head[4] or '0'
if tonumber(version) > tonumber(ARGV[7]) then
  return tonumber(version)
end
local sent = KEYS[4] and redis.call('GET', KEYS[4])
if sent then
  return sent
end
local tip = head[1] or '0-0'
local ms, count = string.match(tip, '^(%d+)-(%d+)$')
ms, count = tonumber(ms), tonumber(count) + 1
local weight = tonumber(head[2] or '0') + #payload
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > ms or count >= tonumber(ARGV[5]) or weight > tonumber(ARGV[6]) then
  ms, count, weight = math.max(now, ms + 1), 0, #payload
end
local id = string.format('%.0f-%.0f', ms, count)
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], id, 'f', from, 'p', payload)
if count == 0 then
  redis.call('XTRIM', KEYS[1], 'MINID', '~', string.format('%.0f', now - tonumber(ARGV[4])))
  redis.call('PEXPIRE', KEYS[1], ARGV[4])
end
redis.call('HSET', KEYS[2], 'tip', id, 'weight', weight)
if tip == '0-0' then
  redis.call('HSET', KEYS[2], 'first', id)
end
if KEYS[4] then
  redis.call('SET', KEYS[4], id, 'PX', ARGV[8])
end
if ARGV[9] ~= '' then
  version = version .. ' ' .. ARGV[9]
end
redis.call('PUBLISH', KEYS[3], id .. '\0' .. tip .. '\0' .. version .. '\0' .. from .. '\0' .. payload)
return id
