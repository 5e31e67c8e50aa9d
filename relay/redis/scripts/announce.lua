-- Have the later messages of a channel carry a new membership version, and have the nodes apply it now.
-- KEYS: head, live. ARGV: version.
local version = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
if tonumber(ARGV[1]) > version then
  redis.call('HDEL', KEYS[1], 'version') -- after a deletion, Redis lets a script write on at its memory limit
  redis.call('HSET', KEYS[1], 'version', ARGV[1])
end
redis.call('PUBLISH', KEYS[2], '')
return 0
