-- Claim a username with its first machine, or neither.
-- ARGV: user, machine, public key, policy ('open', 'closed', 'invite'), invite ('' for none), cluster id ('' for any).
-- Returns 'ok', 'taken', 'enrolled', 'closed', 'uninvited' or 'elsewhere': Redis does not hold that cluster.
local user, machine, key, policy, invite, cluster = unpack(ARGV)
if cluster ~= '' and redis.call('GET', dir .. ':cluster') ~= cluster then -- it was emptied: every name would be free
  return 'elsewhere'
end
if policy == 'closed' then
  return 'closed'
end
local uses, expires
if policy == 'invite' then -- before the name is looked up: a caller without an invite learns no names
  local row = redis.call('HGET', dir .. ':server-invites', invite)
  uses, expires = string.match(row or '', '^(%S+) (%S+)$')
  if not uses or (expires ~= '-' and tonumber(expires) <= now_ms()) then
    redis.call('HDEL', dir .. ':server-invites', invite)
    return 'uninvited'
  end
end
if redis.call('HEXISTS', dir .. ':users', user) == 1 then
  return 'taken'
end
if redis.call('HEXISTS', dir .. ':keys', key) == 1 then
  return 'enrolled'
end
if policy == 'invite' then
  if uses == '1' then
    redis.call('HDEL', dir .. ':server-invites', invite)
  elseif uses ~= '-' then
    redis.call('HSET', dir .. ':server-invites', invite, number(tonumber(uses) - 1) .. ' ' .. expires)
  end
end
local now = number(now_ms())
redis.call('HSET', dir .. ':users', user, now)
redis.call('HSET', dir .. ':keys', key, user .. '/' .. machine)
redis.call('HSET', dir .. ':machines:' .. user, machine, key .. ' ' .. now)
return 'ok'
