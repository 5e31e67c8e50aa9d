-- Remove pending announcements that were made, unless others took their place. ARGV: subject, announcement, ...
for i = 1, #ARGV, 2 do
  if redis.call('HGET', dir .. ':due', ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', dir .. ':due', ARGV[i])
  end
end
return 0
