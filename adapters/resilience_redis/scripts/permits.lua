-- Permits of bulkheads that many processes share; machines/leased_permits.py is the specification.
--
-- KEYS  three per bulkhead key, all in one slot: a hash (counters, and "weight token" by id), a sorted set of ids by
--       the end of their lease, a sorted set of waiting ids by place. All operations but renew have one such key.
-- ARGV  operation, now, limit, lease (microseconds), channel; then
--         acquire  id, weight, queue        returns "token in_use waiting"
--         release  id, mark (0 or 1)        returns 1 or 0
--         peek                              returns "fence in_use waiting"
--         renew    force (0 or 1), then per key: count, and as often id, weight, token
--                                           returns "rest token token ...", rest -1 if there is no lease
--
-- A token is above 0 for who holds permits, 0 for who waits, -1 for who is gone. Who gets permits from the queue is told
-- by a message "id token" in the channel followed by the owner: the id up to its last dot.

local operation, now = ARGV[1], time(ARGV[2])
local limit, lease = number('limit', ARGV[3], 1), positive('lease', ARGV[4])

-- Every call to the server costs as much as all the arithmetic here: each thing is read once and written once.

local COUNTERS = { 'in_use', 'fence', 'place', 'seen' }

local function parse(id, stored)
  if not stored then
    return nil
  end
  local weight, token = string.match(stored, '^(%S+) (%S+)$')
  return number('weight of ' .. id, weight, 0), number('token of ' .. id, token, -1)
end

-- The record of one key, and what is stored for `id`, if one is given.
local function begin(first, id)
  local record = { hash = KEYS[first], leases = KEYS[first + 1], queue = KEYS[first + 2] }
  local stored = redis.call('HMGET', record.hash, 'in_use', 'fence', 'place', 'seen', id or 'seen')
  for i, name in ipairs(COUNTERS) do
    record[name] = number(name .. ' of ' .. record.hash, stored[i] or '0', 0)
  end
  record.waiting = redis.call('ZCARD', record.queue)
  record.id, record.stored, record.fields = id, stored[5], {}
  return record
end

local function entry(record, id)
  if id ~= record.id then
    return parse(id, redis.call('HGET', record.hash, id))
  end
  return parse(id, record.stored)
end

local function put(record, id, weight, token)
  local stored = text(weight) .. ' ' .. text(token)
  if id == record.id then
    record.stored = stored
    record.fields[#record.fields + 1] = id
    record.fields[#record.fields + 1] = stored
  else
    redis.call('HSET', record.hash, id, stored)
  end
  record.changed = true
end

local function extend(record, id)
  redis.call('ZADD', record.leases, text(now + lease), id)
  record.changed, record.extended = true, true
end

local function remove(record, id)
  local weight, token = entry(record, id)
  redis.call('HDEL', record.hash, id)
  redis.call('ZREM', record.leases, id)
  if id == record.id then
    record.stored = false
  end
  if token > 0 then
    record.in_use = record.in_use - weight
  elseif token == 0 then
    redis.call('ZREM', record.queue, id)
    record.waiting = record.waiting - 1
  end
  record.changed = true
end

-- Forget whose lease has ended. If the clock was set back, move the leases with it.
local function reap(record)
  if now < record.seen then
    local leases = redis.call('ZRANGE', record.leases, 0, -1, 'WITHSCORES')
    for i = 1, #leases, 2 do
      redis.call('ZADD', record.leases, text(tonumber(leases[i + 1]) - (record.seen - now)), leases[i])
    end
    record.changed = true
  end
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', record.leases, '-inf', text(now))) do
    remove(record, id)
  end
end

local function next_token(record)
  record.fence = math.max(record.fence + 1, now)
  return record.fence
end

local function grant(record)
  while record.waiting > 0 do
    local id = redis.call('ZRANGE', record.queue, 0, 0)[1]
    local weight = entry(record, id)
    if record.in_use > 0 and record.in_use + weight > limit then
      return
    end
    redis.call('ZREM', record.queue, id)
    record.waiting = record.waiting - 1
    local token = next_token(record)
    record.in_use = record.in_use + weight
    put(record, id, weight, token)
    redis.call('PUBLISH', ARGV[5] .. string.match(id, '^(.*)%.'), id .. ' ' .. text(token))
  end
end

-- Keys live on for a minute after the last lease, those of others included, whose leases may be longer.
local function finish(record)
  if not record.changed then
    return
  end
  redis.call('HSET', record.hash, 'in_use', text(record.in_use), 'fence', text(record.fence),
    'place', text(record.place), 'seen', text(now), unpack(record.fields))
  if not record.extended then
    return
  end
  local expiry = keep(tonumber(redis.call('ZRANGE', record.leases, -1, -1, 'WITHSCORES')[2]), now)
  redis.call('PEXPIRE', record.hash, expiry)
  redis.call('PEXPIRE', record.leases, expiry)
  if record.waiting > 0 then
    redis.call('PEXPIRE', record.queue, expiry)
  end
end

local function check_id(id)
  if not id or not string.find(id, '.', 2, true) then
    refuse('id must be that of the owner, a dot and more, got ' .. tostring(id))
  end
  return id
end

local function acquire(record, id, weight, queue)
  grant(record)
  local _, token = entry(record, id)
  if not token then
    token = -1
    if record.waiting == 0 and record.in_use + weight <= limit then
      token = next_token(record)
      record.in_use = record.in_use + weight
    elseif record.waiting < queue then
      token = 0
      record.place = record.place + 1
      redis.call('ZADD', record.queue, text(record.place), id)
      record.waiting = record.waiting + 1
    end
    if token >= 0 then
      put(record, id, weight, token)
    end
  end
  if token >= 0 then
    extend(record, id)
  end
  return text(token) .. ' ' .. text(record.in_use) .. ' ' .. text(record.waiting)
end

local function release(record, id, mark)
  local _, token = entry(record, id)
  local had = token ~= nil and token >= 0
  if had then
    remove(record, id)
  end
  if mark then
    put(record, id, 0, -1)
    extend(record, id)
  end
  grant(record)
  return had and 1 or 0
end

local function adopt(record, id, weight, token)
  if token < 0 then
    token = next_token(record)
  end
  record.fence = math.max(record.fence, token)
  record.in_use = record.in_use + weight
  put(record, id, weight, token)
  return token
end

-- Everything is checked before anything is changed.
local function read_claims(from)
  local claims, count = {}, number('count', ARGV[from], 0)
  for i = 1, count do
    local at = from + 3 * i - 2
    claims[i] = {
      id = check_id(ARGV[at]),
      weight = number('weight', ARGV[at + 1], 1),
      token = number('token', ARGV[at + 2], -1),
    }
  end
  return claims, from + 3 * count + 1
end

local function renew(record, claims, force, tokens)
  for _, claim in ipairs(claims) do
    local _, token = entry(record, claim.id)
    if not token and claim.token ~= 0 then
      if force or (record.waiting == 0 and record.in_use + claim.weight <= limit) then
        token = adopt(record, claim.id, claim.weight, claim.token)
      end
    end
    if token and token >= 0 then
      extend(record, claim.id)
    end
  end
  grant(record)
  for _, claim in ipairs(claims) do
    local _, token = entry(record, claim.id)
    tokens[#tokens + 1] = text(token or -1)
  end
  local first = redis.call('ZRANGE', record.leases, 0, 0, 'WITHSCORES')[2]
  return first and tonumber(first) - now
end

if operation == 'renew' then
  local all, from = {}, 7
  for key = 1, #KEYS, 3 do
    all[key], from = read_claims(from)
  end
  local tokens, rest = { '-1' }, nil
  for key = 1, #KEYS, 3 do
    local record = begin(key)
    reap(record)
    local own = renew(record, all[key], ARGV[6] == '1', tokens)
    finish(record)
    if own and (not rest or own < rest) then
      rest = own
    end
  end
  tokens[1] = text(rest or -1)
  return table.concat(tokens, ' ')
end

local id, weight, queue
if operation == 'acquire' then
  id, weight, queue = check_id(ARGV[6]), number('weight', ARGV[7], 1), number('queue', ARGV[8], 0)
  if weight > limit then
    refuse('weight must be at most the limit of ' .. text(limit) .. ', got ' .. text(weight))
  end
elseif operation == 'release' then
  id = check_id(ARGV[6])
elseif operation ~= 'peek' then
  refuse('operation is unknown: ' .. tostring(operation))
end

local record = begin(1, id)
reap(record)
local answer
if operation == 'acquire' then
  answer = acquire(record, id, weight, queue)
elseif operation == 'release' then
  answer = release(record, id, ARGV[7] == '1')
else
  answer = text(record.fence) .. ' ' .. text(record.in_use) .. ' ' .. text(record.waiting)
end
finish(record)
return answer
