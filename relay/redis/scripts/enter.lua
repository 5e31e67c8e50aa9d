-- List a subscriber, which gives it the right to post, and take that from the earlier connections of its path: the
-- channel gets another fence if one of them was listed. KEYS: head, subs, log, live. ARGV: connection, 'node path', the
-- message that it received last or '', longest time kept (ms), a message that the node has seen, or '', earlier
-- connections. The node names a message after an interruption: if the log has lost it, that is recorded first.
-- Returns {id of the last message, membership version, 1 if the log has everything after the message that it received
-- last, fence}, or false if the channel was deleted.
if ARGV[5] ~= '' then
  record_hole(KEYS[3], KEYS[1], KEYS[4], ARGV[5], tonumber(ARGV[4]))
end
local head, since = read_head(KEYS[1], KEYS[3]), ARGV[3]
if head[3] then
  return false
end
if ARGV[6] and redis.call('HDEL', KEYS[2], unpack(ARGV, 6)) > 0 then
  redis.call('HINCRBY', KEYS[1], 'fence', 1)
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
local known = since ~= '' and continues(KEYS[3], KEYS[1], head, since, now_ms() - tonumber(ARGV[4]))
if known and head[4] then
  known = not select(2, hole_at(head[4], since))
end
return { head[1], head[2] or '0', known and 1 or 0, redis.call('HGET', KEYS[1], 'fence') or '0' }
