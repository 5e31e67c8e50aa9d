-- Append a message to the channel's log and publish it, each with its predecessor's id. KEYS: log, head, live; and, if
-- the sender has given the message a key of its own, where that is remembered.
-- ARGV: from, payload, most messages kept, longest time kept (ms), most messages and most bytes in one millisecond,
-- the version of who may hear the channel that the sender's node has applied, how long a key is remembered (ms), the
-- trace that the post belongs to ('' if none is recorded: only a message with a trace is published with one, behind its
-- version).
-- Answers the message's id, with a remembered key that of the first message; false if the channel was deleted; or a
-- later version, a number: then the node has to look again whether the sender may still speak.
--
-- The id is Redis' clock in milliseconds and a count. It never goes back; where one millisecond holds as much as a page
-- of history may exceed its size by, the next message counts for the next millisecond, so that a client that knows
-- only milliseconds can still read every message (docs/decisions/0004).
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
