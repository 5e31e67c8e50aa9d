-- List subscribers again, after Redis or their node was away. KEYS: head, subs. ARGV: connection, 'node path', ...
if redis.call('HEXISTS', KEYS[1], 'gone') == 0 then
  redis.call('HSET', KEYS[2], unpack(ARGV))
end
return 0
