-- Remove the notes that a session is in channels. ARGV: user, machine, connection, channel ids ('*' for all).
local user, machine, connection = unpack(ARGV)
for i = 4, #ARGV do
  if ARGV[i] ~= '*' then
    forget(user, ARGV[i] .. ' ' .. connection .. ' ' .. machine)
  else
    for _, note in ipairs(redis.call('ZRANGE', dir .. ':in:' .. user, 0, -1)) do
      if string.match(note, '^%S+ (%S+)') == connection then
        forget(user, note)
      end
    end
  end
end
return 0
