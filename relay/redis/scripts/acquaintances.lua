-- The users with whom a user is a member of some channel, the user included. ARGV: user.
local users = { [ARGV[1]] = true }
for _, id in ipairs(redis.call('SMEMBERS', dir .. ':member:' .. ARGV[1])) do
  for _, user in ipairs(redis.call('SMEMBERS', dir .. ':acl:' .. id)) do
    users[user] = true
  end
end
local answer = {}
for user in pairs(users) do
  answer[#answer + 1] = user
end
return answer
