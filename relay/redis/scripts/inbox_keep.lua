-- Open the inbox of a node, or keep it open and remove from it what was handled. KEYS: inbox.
-- ARGV: the first id that stays, lifetime (s). Returns 1 if it was open, 0 if it had to be created.
local found = redis.call('EXISTS', KEYS[1])
if found == 0 then
  redis.call('XDEL', KEYS[1], redis.call('XADD', KEYS[1], '*', 's', ''))
else
  redis.call('XTRIM', KEYS[1], 'MINID', ARGV[1])
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return found
