-- What the limits of a store are, for those who look at the server. Nothing is decided by it.
--
-- KEYS  a hash: a description by the name of a limiter
-- ARGV  now; names, each followed by its description

local LIFETIME = 30 * 24 * 3600 * 1000000
local MOST = 10000 -- names: what makes up more of them is not worth the room

local now = time(ARGV[1])
if redis.call('HLEN', KEYS[1]) >= MOST then
  return 0
end
for i = 2, #ARGV, 2 do
  redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIRE', KEYS[1], keep(now + LIFETIME, now))
return 1
