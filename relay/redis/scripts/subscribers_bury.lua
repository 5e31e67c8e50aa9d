-- Remove a dead node's subscribers from a piece of a channel's list; the channel gets another fence if there were any:
-- the node may live, and its sessions may post. KEYS: subs, head. ARGV: node, cursor, entries to look at.
-- Returns {cursor of the next piece, '0' after the last one}.
local cursor, rows = unpack(redis.call('HSCAN', KEYS[1], ARGV[2], 'COUNT', ARGV[3]))
local prefix, gone = ARGV[1] .. ' ', {}
for i = 1, #rows, 2 do
  if string.sub(rows[i + 1], 1, #prefix) == prefix then
    gone[#gone + 1] = rows[i]
  end
end
if #gone > 0 then
  redis.call('HINCRBY', KEYS[2], 'fence', 1)
end
for i = 1, #gone, 500 do
  redis.call('HDEL', KEYS[1], unpack(gone, i, math.min(i + 499, #gone)))
end
return { cursor }
