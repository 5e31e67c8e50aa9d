-- Note a subscriber. KEYS: head, subs. ARGV: connection, 'node path'.
-- Answers {the last message's id, the version of who may hear it}, or false if the channel was deleted.
local head = redis.call('HMGET', KEYS[1], 'tip', 'version', 'gone')
if head[3] then
  return false
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
return { head[1] or '0-0', head[2] or '0' }
