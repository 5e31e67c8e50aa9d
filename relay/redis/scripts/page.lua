-- Read a log from after a message, oldest first, without rows beyond the longest time kept. KEYS: log, head.
-- ARGV: id, rows, bytes, whole, longest time kept (ms). A page ends before it exceeds `rows` or `bytes`, but has one
-- row at least; with 'whole' or 'sealed' it includes all of the last row's millisecond. If that is the present one,
-- 'sealed' closes it: later posts get a later one, so a reader who knows only milliseconds, and asks for what is after
-- this one, does not miss them. Nothing else here writes, so a replica can do the rest.
-- A page ends at a hole, too, so that the next one is not known to continue. A reader who knows only milliseconds cannot
-- be told of a hole, and may take a short page for the last one, so a page of whole milliseconds goes on behind it.
-- Returns {1 if the log is known to continue from that id, 1 if there is more, id of the last message, membership
-- version (-1 if the channel was deleted), {id, from, payload, ...}, the last hole: 'after last', or ''}.
local after, rows, bytes, whole = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] ~= ''
local head = read_head(KEYS[2], KEYS[1])
local tip, version, holes = head[1], head[3] and '-1' or head[2] or '0', head[4]
local start, now = '(' .. after, now_ms()
local oldest = now - tonumber(ARGV[5])
local known = continues(KEYS[1], KEYS[2], head, after, oldest) and 1 or 0
if tonumber(string.match(after, '^%d+')) < oldest then
  start = string.format('%.0f', oldest)
end
local page, last, limit = {}, nil, '+'
if holes and not whole then
  limit = select(2, hole_at(holes, after)) or '+'
end
local last_hole = holes and string.match(holes, '%S+ %S+$') or ''
while true do
  local chunk = redis.call('XRANGE', KEYS[1], start, limit, 'COUNT', 32)
  for _, entry in ipairs(chunk) do
    local id, from, payload = entry[1], message(entry[2])
    local ms = string.match(id, '^%d+')
    if last and (rows <= 0 or bytes < #payload) and not (whole and ms == last) then
      return { known, 1, tip, version, page, last_hole }
    end
    local n = #page
    page[n + 1], page[n + 2], page[n + 3] = id, from, payload
    rows, bytes, last = rows - 1, bytes - #payload, ms
  end
  if #chunk == 32 then
    start = '(' .. chunk[32][1]
  elseif limit == '+' then
    if ARGV[4] == 'sealed' and last and tonumber(last) >= now then
      redis.call('HSET', KEYS[2], 'weight', '1000000000000000')
    end
    return { known, 0, tip, version, page, last_hole }
  elseif last then
    return { known, 1, tip, version, page, last_hole }
  else -- what was before the hole is gone
    known, limit = 0, select(2, hole_at(holes, limit)) or '+'
  end
end
