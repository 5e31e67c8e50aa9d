-- Delete a channel's log and list of subscribers. KEYS: head, live, log, subs.
-- ARGV: the time for which the deletion is remembered (ms).
redis.call('DEL', KEYS[1], KEYS[3], KEYS[4])
redis.call('HSET', KEYS[1], 'gone', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PUBLISH', KEYS[2], '')
return 0
