-- Read what only the admins of a channel may see. ARGV: operation, channel, caller's path, key, caller, role, inside.
-- Returns {verdict, ...}: users for acl_list and ban_list; token, 'uses expires', ... for invite_list.
local operation, name, actor, key, user, role, inside = unpack(ARGV)
local id, row = find(name)
local verdict = enrolled(actor, key) and authority(id, row, user, role, inside) or 'revoked'
audited(actor, operation, name, verdict)
local rows = { verdict }
if verdict ~= 'ok' then
  return rows
end
if operation == 'invite_list' then
  local invites, now = redis.call('HGETALL', dir .. ':invites:' .. id), now_ms()
  for i = 1, #invites, 2 do
    local expires = string.match(invites[i + 1], '(%S+)$')
    if expires ~= '-' and tonumber(expires) <= now then
      drop_invite(id, invites[i])
    else
      rows[#rows + 1] = invites[i]
      rows[#rows + 1] = invites[i + 1]
    end
  end
  return rows
end
for _, name in ipairs(redis.call('SMEMBERS', dir .. (operation == 'acl_list' and ':acl:' or ':bans:') .. id)) do
  rows[#rows + 1] = name
end
return rows
