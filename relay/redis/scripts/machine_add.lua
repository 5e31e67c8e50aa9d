-- Add a key to an existing account. ARGV: caller's path, key, user, machine, public key.
-- Returns 'ok', 'revoked', 'named' (the user has a machine of that name) or 'enrolled' (the key is in use).
local actor, own_key, user, machine, key = unpack(ARGV)
local function answer(outcome)
  return audited(actor, 'machine_add', user .. '/' .. machine, outcome)
end
if not enrolled(actor, own_key) then
  return answer('revoked')
end
if redis.call('HEXISTS', dir .. ':machines:' .. user, machine) == 1 then
  return answer('named')
end
if redis.call('HEXISTS', dir .. ':keys', key) == 1 then
  return answer('enrolled')
end
redis.call('HSET', dir .. ':keys', key, user .. '/' .. machine)
redis.call('HSET', dir .. ':machines:' .. user, machine, key .. ' ' .. number(now_ms()))
return answer('ok')
