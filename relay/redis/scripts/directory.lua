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

-- Whether the key of a session is still that of its machine. A session whose key was revoked lives until its node
-- receives the signal; until then its requests are refused.
local function enrolled(path, key)
  return redis.call('HGET', dir .. ':keys', key) == string.match(path, '^[^/]+/[^/]+')
end

local function is_member(id, user)
  return redis.call('SISMEMBER', dir .. ':acl:' .. id, user) == 1
end

-- Whether `user` administers the channel. `role` is 'admin' for a server's admin.
local function rules(id, row, user, role)
  return role == 'admin' or row.creator == user or redis.call('SISMEMBER', dir .. ':admins:' .. id, user) == 1
end

-- Whether `user` may administer the channel: 'ok', 'denied' if the user may know of the channel, else 'missing'.
-- `inside` is the id of the channel that the session has joined by that name.
local function authority(id, row, user, role, inside)
  if not id then
    return 'missing'
  end
  if rules(id, row, user, role) then
    return 'ok'
  end
  if row.visibility == 'public' or inside == id or is_member(id, user) then
    return 'denied'
  end
  return 'missing'
end

local function add_member(id, user)
  redis.call('SADD', dir .. ':acl:' .. id, user)
  redis.call('SADD', dir .. ':member:' .. user, id)
  redis.call('SREM', dir .. ':bans:' .. id, user)
  redis.call('SREM', dir .. ':banned:' .. user, id)
end

local function drop_member(id, user)
  redis.call('SREM', dir .. ':acl:' .. id, user)
  redis.call('SREM', dir .. ':member:' .. user, id)
end

local function drop_invite(id, token)
  redis.call('HDEL', dir .. ':invites:' .. id, token)
  redis.call('HDEL', dir .. ':tokens', token)
  redis.call('ZREM', dir .. ':expiring', token)
end

local due = {} -- the subjects of this operation

-- Add a pending announcement: its subject and its text, with a stamp that makes it unique. It is written in the same
-- step as the change and removed after it was made. If a node dies in between, it stays.
local function owe(field, what)
  redis.call('HSET', dir .. ':due', field, what .. ' ' .. redis.call('INCR', dir .. ':clock'))
  due[#due + 1] = field
end

-- The verdict on an operation and, if it is 'ok', what is pending: subjects and texts. For an operation on one channel
-- (its id), about that one; else about all subjects of the operation. If it has none, everything that is pending: the
-- caller may be repeating an operation that was not announced.
local function with_due(verdict, id)
  if verdict ~= 'ok' then
    return { verdict, {} }
  end
  if not id and #due == 0 then
    return { verdict, redis.call('HGETALL', dir .. ':due') }
  end
  local rows = {}
  for _, field in ipairs(id and { id } or due) do
    local what = redis.call('HGET', dir .. ':due', field)
    if what then
      rows[#rows + 1], rows[#rows + 2] = field, what
    end
  end
  return { verdict, rows }
end

-- Begin a new membership version of a channel. Sessions that joined at an earlier one are reviewed before they receive
-- anything that is posted at this one.
local function change(id)
  local version = redis.call('HINCRBY', dir .. ':channel:' .. id, 'version', 1)
  owe(id, 'changed ' .. number(version))
  return version
end

-- Take the channel from the sessions of `who` (a user, a path, or '/' for every session of a non-member) that have
-- joined it so far.
local function remove(id, who, reason)
  local key = dir .. ':removed:' .. id
  redis.call('HDEL', key, who) -- after a deletion, Redis lets a script write on at its memory limit
  local version = change(id)
  redis.call('HSET', key, who, number(version) .. ' ' .. reason)
  if redis.call('HLEN', key) > 1000 then -- every node has applied what is so many versions old
    local rows = redis.call('HGETALL', key)
    for i = 1, #rows, 2 do
      if tonumber(string.match(rows[i + 1], '^%d+')) < version - 500 then
        redis.call('HDEL', key, rows[i])
      end
    end
  end
end

-- Note that a session is in a channel: the channel has to be reviewed when the user or the machine is removed.
local function enter(user, id, connection, machine)
  redis.call('ZADD', dir .. ':in:' .. user, 0, id .. ' ' .. connection .. ' ' .. machine)
  redis.call('SADD', dir .. ':joined:' .. user, id)
end

-- Remove a note, and the channel from the set that other nodes know, if no other session of the user is noted in it.
local function forget(user, note)
  local inside = dir .. ':in:' .. user
  if redis.call('ZREM', inside, note) == 1 then
    local id = string.match(note, '^%S+')
    if #redis.call('ZRANGEBYLEX', inside, '[' .. id .. ' ', '(' .. id .. '!', 'LIMIT', 0, 1) == 0 then
      redis.call('SREM', dir .. ':joined:' .. user, id)
    end
    return true
  end
end

-- Begin a new membership version of every channel that sessions of a user are in, or of one machine of the user; and of
-- those that only nodes know of which note no machine.
local function change_joined(user, machine)
  local ids, noted = {}, {}
  for _, key in ipairs({ ':in:', ':lost:' }) do
    for _, note in ipairs(redis.call('ZRANGE', dir .. key .. user, 0, -1)) do
      local id, its_machine = string.match(note, '^(%S+) %S+ (.*)$')
      noted[id] = true
      if not machine or machine == its_machine then
        ids[id] = true
      end
    end
  end
  for _, id in ipairs(redis.call('SMEMBERS', dir .. ':joined:' .. user)) do
    if not noted[id] then
      ids[id] = true
    end
  end
  for id in pairs(ids) do
    if redis.call('EXISTS', dir .. ':channel:' .. id) == 1 then
      change(id)
    else
      redis.call('SREM', dir .. ':joined:' .. user, id)
    end
  end
end

local function drop_channel(id, row)
  for _, user in ipairs(redis.call('SMEMBERS', dir .. ':acl:' .. id)) do
    redis.call('SREM', dir .. ':member:' .. user, id)
  end
  for _, user in ipairs(redis.call('SMEMBERS', dir .. ':bans:' .. id)) do
    redis.call('SREM', dir .. ':banned:' .. user, id)
  end
  for _, user in ipairs(redis.call('SMEMBERS', dir .. ':admins:' .. id)) do
    redis.call('SREM', dir .. ':administers:' .. user, id)
  end
  for _, token in ipairs(redis.call('HKEYS', dir .. ':invites:' .. id)) do
    redis.call('HDEL', dir .. ':tokens', token)
    redis.call('ZREM', dir .. ':expiring', token)
  end
  redis.call('HDEL', dir .. ':names', row.name)
  redis.call('SREM', dir .. ':listed', id)
  redis.call('SREM', dir .. ':created:' .. row.creator, id)
  redis.call('DEL', dir .. ':acl:' .. id, dir .. ':bans:' .. id, dir .. ':admins:' .. id, dir .. ':invites:' .. id,
    dir .. ':removed:' .. id, dir .. ':channel:' .. id)
  owe(id, 'deleted')
end

-- Add an operation to the audit trail and return its outcome. It never has a token or a key. A target that is longer
-- than any existing name is cut: it may be as long as its request.
local function audited(actor, operation, target, outcome)
  if #target > 1500 then
    target = string.gsub(string.sub(target, 1, 1500), '[\192-\255]?[\128-\191]*$', '') .. '...' -- at a character
  end
  redis.call('XADD', dir .. ':audit', 'MAXLEN', '~', '10000', '*',
    'actor', actor, 'operation', operation, 'target', target, 'outcome', outcome)
  return outcome
end
