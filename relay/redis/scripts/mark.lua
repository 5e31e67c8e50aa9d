-- The end of a channel's log. KEYS: head, log.
-- Returns {now (ms), id of the last message, membership version (-1 if the channel was deleted)}.
local time = redis.call('TIME')
local head = redis.call('HMGET', KEYS[1], 'tip', 'version', 'gone')
local last = not head[1] and redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1)[1]
local tip = head[1] or last and last[1] or '0-0'
return { time[1] * 1000 + math.floor(time[2] / 1000), tip, head[3] and '-1' or head[2] or '0' }
