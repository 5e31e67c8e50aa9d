-- Prelude of scripts that decide whether a channel's log continues from a message.

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Whether the log has every message that is later than a millisecond.
local function reaches_back(log, head, ms, oldest)
  local known = redis.call('HMGET', head, 'tip', 'first')
  local following = redis.call('XRANGE', log, string.format('%.0f', ms + 1), '+', 'COUNT', 1)[1]
  if not following then
    return tonumber(string.match(known[1] or '0-0', '^%d+')) <= ms
  end
  if tonumber(string.match(following[1], '^%d+')) < oldest then
    return false
  end
  local start = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  return start[1] ~= following[1] or not known[2] or known[2] == start[1]
end

-- Whether the log has every message after `after` ('0-0': every message of the channel). It does not if some were
-- trimmed or are older than `oldest` (ms), or if a failover lost writes, `after` among them.
local function continues(log, head, after, oldest)
  local known = redis.call('HMGET', head, 'tip', 'first')
  if after == (known[1] or '0-0') then
    return true
  end
  local following = redis.call('XRANGE', log, '(' .. after, '+', 'COUNT', 1)[1]
  if not following or tonumber(string.match(following[1], '^%d+')) < oldest then
    return false
  end
  if after == '0-0' then
    return not known[2] or known[2] == following[1]
  end
  return #redis.call('XRANGE', log, after, after) == 1
end
