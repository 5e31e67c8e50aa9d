-- Put a signal into the inbox of a node that opens its inbox. KEYS: inbox. ARGV: signal.
-- Returns the id of the entry, or false if the inbox is not open: the node was evicted, or the inbox was lost.
return redis.call('XADD', KEYS[1], 'NOMKSTREAM', '*', 's', ARGV[1])
