-- Read a log from behind a message on, oldest first, nothing beyond its time. KEYS: log, head.
-- ARGV: id, rows, bytes, whole, longest time kept (ms). A page ends before it exceeds `rows` or `bytes`, but holds at
-- least one row; with 'whole' or 'sealed' it goes on to the end of the last row's millisecond. If that is the present
-- one, 'sealed' declares it full: what is posted from now on counts for a later one, so that the reader, who knows only
-- milliseconds and asks for what is after this one, does not miss it. Nothing else writes, so a replica can do the rest.
-- Answers {1 if the log is known to continue from that id, 1 if there is more, the last message's id, the
-- version of who may hear the channel (-1 if it was deleted), {id, from, payload, ...}}.
local FULL = '1000000000000000'
local after, rows, bytes, whole = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4] ~= ''
local head = redis.call('HMGET', KEYS[2], 'tip', 'version', 'gone')
local tip, version = head[1] or '0-0', head[3] and '-1' or head[2] or '0'
local start, now = '(' .. after, now_ms()
local oldest = now - tonumber(ARGV[5])
local known = continues(KEYS[1], KEYS[2], after, oldest) and 1 or 0
if tonumber(string.match(after, '^%d+')) < oldest then
  start = string.format('%.0f', oldest)
end
local page, last = {}, nil
while true do
  local chunk = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', 32)
  for _, entry in ipairs(chunk) do
    local id, from, payload = entry[1], entry[2][2], entry[2][4]
    local ms = string.match(id, '^%d+')
    if last and (rows <= 0 or bytes < #payload) and not (whole and ms == last) then
      return { known, 1, tip, version, page }
    end
    local n = #page
    page[n + 1], page[n + 2], page[n + 3] = id, from, payload
    rows, bytes, last = rows - 1, bytes - #payload, ms
  end
  if #chunk < 32 then
    if ARGV[4] == 'sealed' and last and tonumber(last) >= now then
      redis.call('HSET', KEYS[2], 'weight', FULL)
    end
    return { known, 0, tip, version, page }
  end
  start = '(' .. chunk[32][1]
end
