-- Put a signal into the inbox of a node that opens its inbox. KEYS: inbox. ARGV: signal, '1' for one that has to be sent
-- at the memory limit of Redis, too.
-- Returns the id of the entry, or false if the inbox is not open: the node was evicted, or the inbox was lost.
if ARGV[2] == '1' then
  redis.call('XDEL', KEYS[1], '0-0') -- after a deletion, Redis lets a script write on at its memory limit
end
return redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', 's', ARGV[1])
