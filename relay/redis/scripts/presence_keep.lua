-- Note again which channels sessions are in. ARGV: for each user, machine, connection, channel id.
for i = 1, #ARGV, 4 do
  local user, machine, connection, id = unpack(ARGV, i, i + 3)
  if redis.call('EXISTS', dir .. ':channel:' .. id) == 1 then
    enter(user, id, connection, machine)
  end
end
return 0
