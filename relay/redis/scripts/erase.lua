-- End a deleted channel: nothing is read from it or written to it any more. KEYS: head, live, log, subs.
-- ARGV: how long to remember that it is gone (ms).
redis.call('DEL', KEYS[1], KEYS[3], KEYS[4])
redis.call('HSET', KEYS[1], 'gone', 1)
redis.call('PEXPIRE', KEYS[1], ARGV[1])
redis.call('PUBLISH', KEYS[2], '')
return 0
