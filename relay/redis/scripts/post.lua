-- Append a message to a channel's log and publish it with the id of its predecessor. KEYS: log, head, live; and, for a
-- message with an idempotency key, the key that remembers it.
-- ARGV: from, payload, most messages kept, longest time kept (ms), most messages and most bytes in one millisecond, the
-- membership version that the sender's node has applied, the time for which an idempotency key is
-- remembered (ms), the trace of the post, or '', the channel's fence when the sender was listed. A trace is published
-- after the version. After an interruption also a message that the sender's node has seen, or '', and a time (ms): if the
-- log has lost the one, that is recorded first, and the id is not earlier than the other.
-- Returns the id of the message, or of the first one under its idempotency key; false if the channel was deleted; or a
-- later version, a number: the node has to apply it before it repeats the post; or -2 if the fence is another one: the
-- sender's connection may have been removed from the list, and may not post (docs/decisions/0014).
--
-- The id is Redis' clock in milliseconds and a count. It never goes back: Redis chooses one after the last entry of the
-- log. A millisecond with as many messages as a page of history may have beyond its size is full, and the next message
-- gets the next one, so a client that knows only milliseconds can read every message (docs/decisions/0004).
--
-- The first message of each period (a 64th of the longest time kept, a minute at most) trims the log and has it expire
-- after that time and a period. So every message stays for as long as it has to, whichever of them is the last.
local from, payload = ARGV[1], ARGV[2]
local head = redis.call('HMGET', KEYS[2], 'tip', 'weight', 'gone', 'version', 'fence')
if head[3] then
  return false
end
local version = head[4] or '0'
if tonumber(version) > tonumber(ARGV[7]) then
  return tonumber(version)
end
if (head[5] or '0') ~= ARGV[10] then
  return -2
end
local sent = KEYS[4] and redis.call('GET', KEYS[4])
if sent then
  return sent
end
local floor = 0
if ARGV[11] then
  floor = tonumber(ARGV[12])
  if ARGV[11] ~= '' then
    record_hole(KEYS[1], KEYS[2], KEYS[3], ARGV[11], tonumber(ARGV[4]))
    head = redis.call('HMGET', KEYS[2], 'tip', 'weight')
  end
  if tonumber(string.match(head[1] or '0-0', '^%d+')) < floor then
    head[2] = ARGV[6] -- as if the last millisecond was full
  end
end
local tip, size = head[1], #payload
if not tip then
  local row = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
  tip = row and row[1] or '0-0'
end
local last, count = string.match(tip, '^(%d+)-(%d+)$')
local weight = tonumber(head[2] or '0') + size
local id
if tonumber(count) + 1 < tonumber(ARGV[5]) and weight <= tonumber(ARGV[6]) then
  id = redis.call('XADD', KEYS[1], 'NOMKSTREAM', 'MAXLEN', '~', ARGV[3], '*', 'f', from, 'p', payload)
end
local explicit = not id
if explicit then -- the last millisecond is full, the clock is behind, or there is no log to continue from
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  id = string.format('%.0f-0', math.max(now, tonumber(last) + 1, floor))
  if tip ~= '0-0' and (redis.call('HGET', KEYS[2], 'base') == tip or redis.call('EXISTS', KEYS[1]) == 0) then
    redis.call('HSET', KEYS[2], 'base', tip, 'next', id)
  end
  redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[3], id, 'f', from, 'p', payload)
end
local ms = string.match(id, '^%d+')
if ms ~= last then
  weight = size
  local keep = tonumber(ARGV[4])
  local period = math.min(math.ceil(keep / 64), 60000)
  if explicit or math.floor(ms / period) ~= math.floor(last / period) then
    redis.call('XTRIM', KEYS[1], 'MINID', '~', string.format('%.0f', ms - keep))
    redis.call('PEXPIRE', KEYS[1], string.format('%.0f', keep + period))
  end
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
