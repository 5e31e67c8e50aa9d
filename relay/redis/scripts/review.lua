-- Decide whether sessions in a channel may stay. ARGV: id; then for each: path, public key, version at its join.
-- Returns {} if the channel was deleted, else {name, version, for each session the reason for which it has to leave, or
-- ''}.
local id = ARGV[1]
local row = redis.call('HMGET', dir .. ':channel:' .. id, 'name', 'version', 'visibility')
if not row[1] then
  return {}
end
local removed = {}
local rows = redis.call('HGETALL', dir .. ':removed:' .. id)
for i = 1, #rows, 2 do
  local version, reason = string.match(rows[i + 1], '^(%d+) (%S+)$')
  removed[rows[i]] = { tonumber(version), reason }
end
local function since(who, joined)
  return removed[who] and removed[who][1] > joined and removed[who][2]
end
local answer = { row[1], row[2] }
for i = 2, #ARGV, 3 do
  local path, key, joined = ARGV[i], ARGV[i + 1], tonumber(ARGV[i + 2])
  local user = string.match(path, '^[^/]+')
  local member = is_member(id, user)
  local reason = not enrolled(path, key) and 'revoked' or since(path, joined) or since(user, joined)
  if not reason and redis.call('SISMEMBER', dir .. ':bans:' .. id, user) == 1 then
    reason = 'banned'
  end
  if not reason and not member then -- also if the channel is public again: that makes nobody join again
    reason = row[3] == 'private' and 'private' or since('/', joined)
  end
  answer[#answer + 1] = reason or ''
end
return answer
