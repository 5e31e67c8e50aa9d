-- Read on in an inbox that is to be closed; if nothing is left, close it in the same step. KEYS: inbox.
-- ARGV: the id of the last entry that was read, number of entries. Returns the entries; none of them: it is closed.
local entries = redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', ARGV[2])
if #entries == 0 then
  redis.call('DEL', KEYS[1])
end
return entries
