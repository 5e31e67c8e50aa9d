-- The right of a connection to post. KEYS: head, subs. ARGV: connection.
-- Returns the channel's fence if the connection is listed, else false.
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
  return false
end
return redis.call('HGET', KEYS[1], 'fence') or '0'
