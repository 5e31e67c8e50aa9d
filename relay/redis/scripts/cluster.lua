-- The cluster's id. ARGV: the id that the first node chooses. Returns it, or the one that was chosen before; false if
-- there are users and no id: it was lost, and another one would make this another cluster for its clients.
local id = redis.call('GET', dir .. ':cluster')
if id then
  return id
end
if redis.call('EXISTS', dir .. ':users') == 1 then
  return false
end
redis.call('SET', dir .. ':cluster', ARGV[1])
return ARGV[1]
