-- The channels that a user may know of. ARGV: user, role.
-- Returns id, name, visibility, '1' for a member, '1' for a user who may administer it; id, ...
local ids
if ARGV[2] == 'admin' then
  ids = redis.call('HVALS', dir .. ':names')
else
  ids = redis.call('SUNION', dir .. ':listed', dir .. ':member:' .. ARGV[1])
end
local mine = {}
for _, id in ipairs(redis.call('SMEMBERS', dir .. ':member:' .. ARGV[1])) do
  mine[id] = '1'
end
local rows = {}
for _, id in ipairs(ids) do
  local row = redis.call('HMGET', dir .. ':channel:' .. id, 'name', 'visibility', 'creator')
  if row[1] then
    local n = #rows
    rows[n + 1], rows[n + 2], rows[n + 3], rows[n + 4] = id, row[1], row[2], mine[id] or '0'
    rows[n + 5] = rules(id, { creator = row[3] }, ARGV[1], ARGV[2]) and '1' or '0'
  end
end
return rows
