-- Record that the log has lost messages, if that is so. KEYS: log, head, live. ARGV: a message that was delivered, longest
-- time kept (ms).
record_hole(KEYS[1], KEYS[2], KEYS[3], ARGV[1], tonumber(ARGV[2]))
return 0
