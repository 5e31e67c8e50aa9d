-- The channels that a user may know of. ARGV: user, role. Answers: name, visibility, '1' if a member; name, ...
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
  local row = redis.call('HMGET', dir .. ':channel:' .. id, 'name', 'visibility')
  if row[1] then
    rows[#rows + 1] = row[1]
    rows[#rows + 1] = row[2]
    rows[#rows + 1] = mine[id] or '0'
  end
end
return rows
