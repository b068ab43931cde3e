-- The live processes of a store.
--
-- KEYS  a sorted set: process ids by the time at which they are not counted any more
-- ARGV  operation, now, process id; beat: microseconds until it is not counted any more
--
-- beat returns the number of live processes and whether this one was known (1 or 0), leave 1 or 0.

local operation, now = ARGV[1], time(ARGV[2])

if operation == 'leave' then
  return redis.call('ZREM', KEYS[1], ARGV[3])
elseif operation == 'beat' then
  local until_when = now + positive('lifetime', ARGV[4])
  redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', text(now))
  local known = 1 - redis.call('ZADD', KEYS[1], text(until_when), ARGV[3])
  redis.call('PEXPIRE', KEYS[1], keep(until_when, now))
  return {redis.call('ZCARD', KEYS[1]), known}
end
refuse('operation is unknown: ' .. tostring(operation))
