-- Prelude of scripts that decide whether a channel's log continues from a message. A head is {tip, version, gone, holes}
-- as `read_head` returns it; holes are a text, as holes.lua writes it, or false.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function read_head(key, log)
  local head = redis.call('HMGET', key, 'tip', 'version', 'gone', 'holes')
  if not head[1] then
    local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
    head[1] = last and last[1] or '0-0'
  end
  return head
end

-- The sender and the payload in the fields of a log's entry; '' and '' if they are of a later format.
local function message(fields)
  if fields[1] == 'f' and fields[3] == 'p' then
    return fields[2], fields[4]
  end
  return '', ''
end

local function earlier(one, other)
  local ms, count = string.match(one, '^(%d+)-(%d+)$')
  local other_ms, other_count = string.match(other, '^(%d+)-(%d+)$')
  if ms ~= other_ms then
    return tonumber(ms) < tonumber(other_ms)
  end
  return tonumber(count) < tonumber(other_count)
end

-- Whether a hole begins at a position, or has it in the middle; and the message after which the next one is, if any.
local function hole_at(holes, position)
  local inside = false
  for after, last in string.gmatch(holes, '(%S+) (%S+)') do
    if earlier(position, after) then
      return inside, after
    end
    inside = inside or earlier(position, last)
  end
  return inside
end

-- Whether the log has every message after `after` ('0-0': every message of the channel), up to the next hole. It does
-- not if some were trimmed or are older than `oldest` (ms), or if a failover lost writes, `after` among them.
local function continues(log, key, head, after, oldest)
  if after == head[1] then
    return true
  end
  local following = redis.call('XRANGE', log, '(' .. after, '+', 'COUNT', 1)[1]
  if not following or tonumber(string.match(following[1], '^%d+')) < oldest or head[4] and hole_at(head[4], after) then
    return false
  end
  if after == '0-0' then
    local first = redis.call('HGET', key, 'first')
    return not first or first == following[1]
  end
  if #redis.call('XRANGE', log, after, after) == 1 then
    return true
  end
  local known = redis.call('HMGET', key, 'base', 'next', 'first')
  if after == known[1] and following[1] == known[2] then
    return true
  end
  for start, last in string.gmatch(head[4] or '', '(%S+) (%S+)') do
    if after == last then
      return #redis.call('XRANGE', log, start, start) == 1 or start == '0-0' and following[1] == known[3]
    end
  end
  return false
end
