-- A retry budget that many processes share; machines/token_bank.py is the specification.
--
-- KEYS  a hash (tokens, lent, and "tokens number" by id), a sorted set of ids by the time at which they are written off
-- ARGV  operation, now, capacity, lifetime (microseconds); then
--         exchange  id, number, spent, earned, keep, want, least     returns "held left"
--         peek                                                       returns "left lent"

local operation, now = ARGV[1], time(ARGV[2])
local capacity, lifetime = positive('capacity', ARGV[3]), positive('lifetime', ARGV[4])

-- Time alone brings no token back; but a budget that nobody has used for an hour begins anew.
local FORGET = 3600 * 1000000

local function slice_of(id)
  local stored = redis.call('HGET', KEYS[1], id)
  if not stored then
    return nil
  end
  local tokens, last = string.match(stored, '^(%S+) (%S+)$')
  return number('tokens of ' .. id, tokens, 0), last
end

local function write_off(lent)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', text(now))) do
    lent = math.max(0, lent - slice_of(id))
    redis.call('HDEL', KEYS[1], id)
    redis.call('ZREM', KEYS[2], id)
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', KEYS[2], '(' .. text(now + lifetime), '+inf')) do
    redis.call('ZADD', KEYS[2], text(now + lifetime), id)
  end
  if redis.call('ZCARD', KEYS[2]) == 0 then
    lent = 0
  end
  return lent
end

local stored = redis.call('HMGET', KEYS[1], 'tokens', 'lent')
local tokens = number('tokens of ' .. KEYS[1], stored[1] or text(capacity), 0)
local lent = number('lent of ' .. KEYS[1], stored[2] or '0', 0)

if operation == 'peek' then
  return text(tokens) .. ' ' .. text(lent)
elseif operation ~= 'exchange' then
  refuse('operation is unknown: ' .. tostring(operation))
end

local id, count = ARGV[5], ARGV[6]
if not id or not string.find(id, '.', 2, true) then
  refuse('id must contain a dot, got ' .. tostring(id))
end
number('number', count, 1)
local spent, earned = number('spent', ARGV[7], 0), number('earned', ARGV[8], 0)
local kept, want, least = number('keep', ARGV[9], 0), number('want', ARGV[10], 0), number('least', ARGV[11], 0)

lent = write_off(lent)
local held, last = slice_of(id)
if not held or last ~= count then
  lent = math.max(0, lent - (held or 0))
  tokens = tokens + (held or 0) - spent - kept + earned
  tokens = math.max(0, math.min(tokens, capacity - lent - kept))
  local more = math.min(want - kept, tokens)
  if more <= 0 or more < least then
    more = 0
  end
  tokens = tokens - more
  held = kept + more
  lent = lent + held
end
redis.call('HSET', KEYS[1], 'tokens', text(tokens), 'lent', text(lent), id, text(held) .. ' ' .. count)
redis.call('ZADD', KEYS[2], text(now + lifetime), id)
local expiry = keep(now + lifetime + FORGET, now)
redis.call('PEXPIRE', KEYS[1], expiry)
redis.call('PEXPIRE', KEYS[2], expiry)
return text(held) .. ' ' .. text(tokens)
