-- Prelude of every directory script. KEYS[1] is the directory's key; all of it lies in one hash slot.
local dir = KEYS[1]

local function number(n)
  return string.format('%.0f', n)
end

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- The id and the row (name, visibility, creator) of a channel, or nil.
local function find(name)
  local id = redis.call('HGET', dir .. ':names', name)
  if not id then
    return nil
  end
  local row = redis.call('HMGET', dir .. ':channel:' .. id, 'name', 'visibility', 'creator')
  return id, { name = row[1], visibility = row[2], creator = row[3] }
end

local function is_member(id, user)
  return redis.call('SISMEMBER', dir .. ':acl:' .. id, user) == 1
end

-- Whether `user` may administer the channel: 'ok', 'denied' where the channel is no secret to them, else 'missing'.
-- `role` is 'admin' for a server's admin; `inside` is '1' for somebody who has joined the channel.
local function authority(id, row, user, role, inside)
  if not id then
    return 'missing'
  end
  if role == 'admin' or row.creator == user then
    return 'ok'
  end
  if row.visibility == 'public' or inside == '1' or is_member(id, user) then
    return 'denied'
  end
  return 'missing'
end

local function add_member(id, user)
  redis.call('SADD', dir .. ':acl:' .. id, user)
  redis.call('SADD', dir .. ':member:' .. user, id)
end

local function drop_invite(id, token)
  redis.call('HDEL', dir .. ':invites:' .. id, token)
  redis.call('HDEL', dir .. ':tokens', token)
  redis.call('ZREM', dir .. ':expiring', token)
end
