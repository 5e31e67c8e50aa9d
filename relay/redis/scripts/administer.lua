-- Carry out a channel operation. ARGV: operation, channel, caller's path, key, caller, role, inside, argument.
-- Returns a verdict ('ok', 'denied', 'missing', 'taken', 'revoked') and the pending announcement of the channel.
local operation, name, actor, key, user, role, inside, arg = unpack(ARGV)
local id, row = find(name)

local operations = {}

operations.delete_channel = function()
  drop_channel(id, row)
end

operations.rename_channel = function()
  local holder = redis.call('HGET', dir .. ':names', arg)
  if holder and holder ~= id then
    return 'taken'
  end
  redis.call('HDEL', dir .. ':names', name)
  redis.call('HSET', dir .. ':names', arg, id)
  redis.call('HSET', dir .. ':channel:' .. id, 'name', arg)
  change(id)
end

operations.set_visibility = function()
  redis.call('HSET', dir .. ':channel:' .. id, 'visibility', arg)
  redis.call(arg == 'public' and 'SADD' or 'SREM', dir .. ':listed', id)
  if arg == 'private' then
    remove(id, '/', 'private')
  end
end

operations.acl_add = function()
  add_member(id, arg)
end

operations.acl_remove = function()
  drop_member(id, arg)
  remove(id, arg, 'removed')
end

operations.acl_promote = function()
  add_member(id, arg)
  redis.call('SADD', dir .. ':admins:' .. id, arg)
  redis.call('SADD', dir .. ':administers:' .. arg, id)
end

operations.acl_demote = function()
  redis.call('SREM', dir .. ':admins:' .. id, arg)
  redis.call('SREM', dir .. ':administers:' .. arg, id)
end

operations.kick = function()
  remove(id, arg, 'kicked')
end

operations.ban = function()
  drop_member(id, arg)
  operations.acl_demote()
  redis.call('SADD', dir .. ':bans:' .. id, arg)
  redis.call('SADD', dir .. ':banned:' .. arg, id)
  remove(id, arg, 'banned')
end

operations.unban = function()
  redis.call('SREM', dir .. ':bans:' .. id, arg)
  redis.call('SREM', dir .. ':banned:' .. arg, id)
end

-- arg: token ~ uses ('-' for any number) ~ seconds to live ('-' for ever)
operations.invite_create = function()
  local token, uses, seconds = string.match(arg, '^(%S+) (%S+) (%S+)$')
  local now, expires = now_ms(), '-'
  -- Remove a few of the invites that have expired unused.
  for _, old in ipairs(redis.call('ZRANGEBYSCORE', dir .. ':expiring', '-inf', number(now), 'LIMIT', 0, 20)) do
    drop_invite(redis.call('HGET', dir .. ':tokens', old) or '', old)
  end
  if seconds ~= '-' then
    expires = number(now + tonumber(seconds) * 1000)
    redis.call('ZADD', dir .. ':expiring', expires, token)
  end
  redis.call('HSET', dir .. ':invites:' .. id, token, uses .. ' ' .. expires)
  redis.call('HSET', dir .. ':tokens', token, id)
end

local verdict = enrolled(actor, key) and authority(id, row, user, role, inside) or 'revoked'
if verdict == 'ok' then
  verdict = operations[operation]() or 'ok'
end
local target = name
if operation ~= 'invite_create' and arg ~= '' then
  target = name .. ' ' .. arg
end
return with_due(audited(actor, operation, target, verdict), id)
