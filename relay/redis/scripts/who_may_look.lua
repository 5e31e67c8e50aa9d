-- The id of a channel whose subscribers a user may see, or false. ARGV: name, user, role.
local id, row = find(ARGV[1])
if id and (row.visibility == 'public' or ARGV[3] == 'admin' or is_member(id, ARGV[2])) then
  return id
end
return false
