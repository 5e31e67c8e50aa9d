-- Delete the inbox of a dead node unless there is something in it, which the node reads if it comes back. It expires
-- otherwise. KEYS: inbox.
if redis.call('XLEN', KEYS[1]) == 0 then
  redis.call('DEL', KEYS[1])
end
return 0
