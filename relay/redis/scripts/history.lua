-- Read a piece of a log, without rows beyond the longest time kept. KEYS: log, head.
-- ARGV: after (a message's id, a time in ms, or ''), before (a message's id, or ''), rows, bytes, longest time kept
-- (ms). With `after` the piece is the oldest messages after that, else the newest ones, newest first; always before
-- `before`. It has one row at least, if there is any.
-- Returns {1 if there is more in that direction, 1 if the log has everything after `after`, id of the last message,
-- membership version (-1 if the channel was deleted), {id, from, payload, ...}}.
local after, before, rows, bytes = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local head = redis.call('HMGET', KEYS[2], 'tip', 'version', 'gone')
local tip, version = head[1] or '0-0', head[3] and '-1' or head[2] or '0'
local oldest, known = now_ms() - tonumber(ARGV[5]), 1
if after ~= '' and not string.find(after, '-', 1, true) then
  known = reaches_back(KEYS[1], KEYS[2], tonumber(after), oldest) and 1 or 0
  after = after .. '-18446744073709551615'
elseif after ~= '' then
  known = continues(KEYS[1], KEYS[2], after, oldest) and 1 or 0
end
if before == '0-0' then
  return { 0, known, tip, version, {} }
end
local low, high = string.format('%.0f', oldest), before == '' and '+' or '(' .. before
if after ~= '' and tonumber(string.match(after, '^%d+')) >= oldest then
  low = '(' .. after
end
local page = {}
while true do
  local chunk
  if after ~= '' then
    chunk = redis.call('XRANGE', KEYS[1], low, high, 'COUNT', 32)
  else
    chunk = redis.call('XREVRANGE', KEYS[1], high, low, 'COUNT', 32)
  end
  for _, entry in ipairs(chunk) do
    local id, from, payload = entry[1], entry[2][2], entry[2][4]
    local n = #page
    if n > 0 and (rows <= 0 or bytes < #payload) then
      return { 1, known, tip, version, page }
    end
    page[n + 1], page[n + 2], page[n + 3] = id, from, payload
    rows, bytes = rows - 1, bytes - #payload
  end
  if #chunk < 32 then
    return { 0, known, tip, version, page }
  end
  if after ~= '' then
    low = '(' .. chunk[32][1]
  else
    high = '(' .. chunk[32][1]
  end
end
