-- Decide whether a user may join a channel. A valid invite makes the user a member and is used up in the same step.
-- ARGV: name, path, key, user, role, token ('' for none), connection.
-- Returns {'ok', id, version, '1' if the user may administer it}, {'private'}, {'missing'} or {'revoked'}.
local name, path, key, user, role, token, connection = unpack(ARGV)
if not enrolled(path, key) then
  return { 'revoked' }
end
local id, row = find(name)
if not id then
  return { 'missing' }
end
if redis.call('SISMEMBER', dir .. ':bans:' .. id, user) == 1 then
  -- A private channel stays hidden from users who were removed from it.
  return { row.visibility == 'private' and 'missing' or 'private' }
end
if row.visibility == 'private' and not is_member(id, user) then
  local invite = redis.call('HGET', dir .. ':invites:' .. id, token)
  if token == '' or not invite then
    return { 'missing' }
  end
  local uses, expires = string.match(invite, '^(%S+) (%S+)$')
  if expires ~= '-' and tonumber(expires) <= now_ms() then
    drop_invite(id, token)
    return { 'missing' }
  end
  if uses == '1' then
    drop_invite(id, token)
  elseif uses ~= '-' then
    redis.call('HSET', dir .. ':invites:' .. id, token, number(tonumber(uses) - 1) .. ' ' .. expires)
  end
  add_member(id, user)
end
enter(user, id, connection, string.match(path, '^[^/]+/([^/]+)'))
return { 'ok', id, redis.call('HGET', dir .. ':channel:' .. id, 'version'), rules(id, row, user, role) and '1' or '0' }
