-- Note a subscriber. KEYS: head, subs. ARGV: connection, 'node path'. Answers the last message's id, or false if the
-- channel was deleted.
local head = redis.call('HMGET', KEYS[1], 'tip', 'gone')
if head[2] then
  return false
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return head[1] or '0-0'
