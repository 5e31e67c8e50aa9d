-- Whether a user may join a channel; a good invite makes them a member and is used up in the same step.
-- ARGV: name, user, token ('' for none). Answers: {'ok', id}, {'private'}, {'missing'}.
local name, user, token = ARGV[1], ARGV[2], ARGV[3]
local id, row = find(name)
if not id then
  return { 'missing' }
end
if redis.call('SISMEMBER', dir .. ':bans:' .. id, user) == 1 then
  -- A private channel stays a secret from those who were thrown out of it.
  return { row.visibility == 'private' and 'missing' or 'private' }
end
if row.visibility ~= 'private' or is_member(id, user) then
  return { 'ok', id }
end
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
return { 'ok', id }
