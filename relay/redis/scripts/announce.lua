-- Have a channel's messages carry a new version of who may hear it, and have the nodes look at once.
-- KEYS: head, live. ARGV: version.
local version = tonumber(redis.call('HGET', KEYS[1], 'version') or '0')
if tonumber(ARGV[1]) > version then
  redis.call('HSET', KEYS[1], 'version', ARGV[1])
end
redis.call('PUBLISH', KEYS[2], '')
return 0
