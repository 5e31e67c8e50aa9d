-- Read a piece of a log, without rows beyond the longest time kept. KEYS: log, head.
-- ARGV: after (a message's id, a time in ms, or ''), before (a message's id, or ''), rows, bytes, longest time kept
-- (ms). With `after` the piece is the oldest messages after that, else the newest ones, newest first; always before
-- `before`. It has one row at least, if there is any. With `after` it ends at a hole, so that the next one is not known to
-- continue; without, it has the holes between its rows, before `before`, and, if there is no more, before its first row.
-- Returns {1 if there is more in that direction, 1 if the log has everything after `after`, id of the last message,
-- membership version (-1 if the channel was deleted), {id, from, payload, ...}, {the message after which a hole is, ...}}.

-- Whether the log has every message that is later than a millisecond, up to the next hole.
local function reaches_back(log, key, head, ms, oldest)
  local following = redis.call('XRANGE', log, string.format('%.0f', ms + 1), '+', 'COUNT', 1)[1]
  if not following then
    return tonumber(string.match(head[1], '^%d+')) <= ms
  end
  if tonumber(string.match(following[1], '^%d+')) < oldest then
    return false
  end
  if hole_at(head[4] or '', string.format('%.0f-18446744073709551615', ms)) then
    return false
  end
  local start = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  local first = redis.call('HGET', key, 'first')
  return start[1] ~= following[1] or not first or first == start[1]
end

local after, before, rows, bytes = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local head = read_head(KEYS[2], KEYS[1])
local holes = head[4] or ''
local oldest, known = now_ms() - tonumber(ARGV[5]), 1
if after ~= '' and not string.find(after, '-', 1, true) then
  known = reaches_back(KEYS[1], KEYS[2], head, tonumber(after), oldest) and 1 or 0
  after = after .. '-18446744073709551615'
elseif after ~= '' then
  known = continues(KEYS[1], KEYS[2], head, after, oldest) and 1 or 0
end
local page, first = {}, nil
local low, high = string.format('%.0f', oldest), before == '' and '+' or '(' .. before
if after ~= '' and tonumber(string.match(after, '^%d+')) >= oldest then
  low = '(' .. after
end

-- The end of the piece that begins after a position: the next hole, or `before`.
local function end_after(position)
  local hole = select(2, hole_at(holes, position))
  return hole and (before == '' or earlier(hole, before)) and hole or high
end

local limit = after == '' and high or end_after(after)

-- The holes behind the first row of the newest ones, and those before it if no more rows are there.
local function holes_of_page(more)
  local found = {}
  for start, last in string.gmatch(after == '' and holes or '', '(%S+) (%S+)') do
    local is_kept = tonumber(string.match(last, '^%d+')) >= oldest
    local is_in = first and not earlier(start, first) or more == 0 and is_kept
    if is_in and (before == '' or earlier(start, before)) then
      found[#found + 1] = start
    end
  end
  return found
end

local function reply(more)
  return { more, known, head[1], head[3] and '-1' or head[2] or '0', page, holes_of_page(more) }
end

while before ~= '0-0' do
  local chunk
  if after == '' then
    chunk = redis.call('XREVRANGE', KEYS[1], high, low, 'COUNT', 32)
  else
    chunk = redis.call('XRANGE', KEYS[1], low, limit, 'COUNT', 32)
  end
  for _, entry in ipairs(chunk) do
    local id, from, payload = entry[1], message(entry[2])
    local n = #page
    if n > 0 and (rows <= 0 or bytes < #payload) then
      return reply(1)
    end
    page[n + 1], page[n + 2], page[n + 3], first = id, from, payload, id
    rows, bytes = rows - 1, bytes - #payload
  end
  if #chunk == 32 and after ~= '' then
    low = '(' .. chunk[32][1]
  elseif #chunk == 32 then
    high = '(' .. chunk[32][1]
  elseif after == '' or limit == high then
    return reply(0)
  elseif first then
    return reply(1)
  else -- what was before the hole is gone
    known, limit = 0, end_after(limit)
  end
end
return reply(0)
