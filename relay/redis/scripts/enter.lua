-- List a subscriber, which gives it the right to post, and take that from the earlier connections of its path. KEYS:
-- head, subs, log. ARGV: connection, 'node path', the message that it received last or '', longest time kept (ms),
-- earlier connections.
-- Returns {id of the last message, membership version, 1 if the log continues from the message that
-- it received last}, or false if the channel was deleted.
local head = redis.call('HMGET', KEYS[1], 'tip', 'version', 'gone')
if head[3] then
  return false
end
if ARGV[5] then
  redis.call('HDEL', KEYS[2], unpack(ARGV, 5))
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
local known = ARGV[3] ~= '' and continues(KEYS[3], KEYS[1], ARGV[3], now_ms() - tonumber(ARGV[4]))
return { head[1] or '0-0', head[2] or '0', known and 1 or 0 }
