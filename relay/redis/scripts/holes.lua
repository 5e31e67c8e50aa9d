-- Prelude of scripts that record the holes of a channel's log. A hole is where a failover has lost messages that were
-- delivered: those after `after`, up to `last` and with it. The field `holes` of the head lists them, `after` and `last`
-- in turn, oldest first.

-- Record a hole up to `position`, a message that was delivered, unless the log has it, had it before it was trimmed, or
-- knows that it is lost. Every later message gets a later id. All nodes with subscribers are told to read the log.
-- Holes that meet become one; those that end before the time that is kept (ms) are left out, and of too many the two
-- oldest become one. One function with all that it needs in it: the scripts have no other use for these, and pay for
-- one closure only.
local function record_hole(log, head, live, position, keep)
  local MOST_HOLES, FULL = 32, '1000000000000000'

  local function earlier(one, other)
    local ms, count = string.match(one, '^(%d+)-(%d+)$')
    local other_ms, other_count = string.match(other, '^(%d+)-(%d+)$')
    if ms ~= other_ms then
      return tonumber(ms) < tonumber(other_ms)
    end
    return tonumber(count) < tonumber(other_count)
  end

  -- The last row of the log before the position, or at all; '0-0' if none was there; nothing if they were trimmed.
  local function row_before(limit, first)
    local row = redis.call('XREVRANGE', log, limit, '-', 'COUNT', 1)[1]
    if row then
      return row[1]
    end
    local start = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
    return (not start or start[1] == first) and '0-0'
  end

  local function with_hole(text, after, last, oldest)
    local kept = {}
    for hole_after, hole_last in string.gmatch(text, '(%S+) (%S+)') do
      if earlier(hole_last, after) or earlier(last, hole_after) then
        kept[#kept + 1] = { hole_after, hole_last }
      else
        after = earlier(hole_after, after) and hole_after or after
        last = earlier(last, hole_last) and hole_last or last
      end
    end
    kept[#kept + 1] = { after, last }
    table.sort(kept, function(one, other) return earlier(one[2], other[2]) end)
    while #kept > 1 and tonumber(string.match(kept[1][2], '^%d+')) < oldest do
      table.remove(kept, 1)
    end
    if #kept > MOST_HOLES then
      kept[2][1] = kept[1][1]
      table.remove(kept, 1)
    end
    for n, hole in ipairs(kept) do
      kept[n] = hole[1] .. ' ' .. hole[2]
    end
    return table.concat(kept, ' ')
  end

  local known = redis.call('HMGET', head, 'tip', 'holes', 'first', 'gone')
  local tip, text = known[1] or row_before('+') or '0-0', known[2] or ''
  if known[4] or position == tip or position == '0-0' then
    return
  end
  local at_end, after = earlier(tip, position), tip
  if not at_end then
    after = #redis.call('XRANGE', log, position, position) == 0 and row_before('(' .. position, known[3])
  end
  local time = redis.call('TIME')
  local holes = after and with_hole(text, after, position, time[1] * 1000 - keep)
  if not holes or holes == text then
    return
  end
  redis.call('HSET', head, 'holes', holes)
  if at_end then
    redis.call('HSET', head, 'tip', position, 'weight', FULL, 'base', position)
    redis.call('HDEL', head, 'next')
    if tip == '0-0' then
      redis.call('HSET', head, 'first', position)
    end
  end
  redis.call('PUBLISH', live, '')
end
