-- Make somebody a member and lift a ban on them; they need not exist yet.
-- ARGV: name, caller, role, inside, user. Answers: 'ok', 'denied', 'missing'.
local id, row = find(ARGV[1])
local verdict = authority(id, row, ARGV[2], ARGV[3], ARGV[4])
if verdict == 'ok' then
  add_member(id, ARGV[5])
  redis.call('SREM', dir .. ':bans:' .. id, ARGV[5])
end
return verdict
