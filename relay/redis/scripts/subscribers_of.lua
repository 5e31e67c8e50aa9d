-- Find a node's subscribers in a piece of a channel's list. KEYS: subs, head.
-- ARGV: node, cursor, entries to look at.
-- Returns {cursor of the next piece, '0' after the last one; connection and path of each, ...}.
local cursor, rows = unpack(redis.call('HSCAN', KEYS[1], ARGV[2], 'COUNT', ARGV[3]))
local prefix, answer = ARGV[1] .. ' ', { cursor }
for i = 1, #rows, 2 do
  if string.sub(rows[i + 1], 1, #prefix) == prefix then
    answer[#answer + 1], answer[#answer + 2] = rows[i], string.sub(rows[i + 1], #prefix + 1)
  end
end
return answer
