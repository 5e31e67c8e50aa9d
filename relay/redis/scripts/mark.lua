-- Up to where a channel's log goes. KEYS: head.
-- Answers {now (ms), the last message's id, the version of who may hear the channel (-1 if it was deleted)}.
local time = redis.call('TIME')
local head = redis.call('HMGET', KEYS[1], 'tip', 'version', 'gone')
return { time[1] * 1000 + math.floor(time[2] / 1000), head[1] or '0-0', head[3] and '-1' or head[2] or '0' }
