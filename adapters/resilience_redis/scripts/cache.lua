-- One entry of a cache, and the lease by which one process fetches it for all.
--
-- KEYS  a hash: v payload, k kind; e, s, g when it expires, is no more served stale, no spare any more;
--       d how long it took to fetch; p no refresh before; t token, l end of the lease, w somebody waits for it
-- ARGV  operation, now, then
--         look     token, lease, draw of the early refresh; answers state, kind, payload, time left of the lease
--         store    token, kind, payload, life, stale for, spare for, duration, channel, message
--         renew    token, lease
--         release  token, pause, channel, message
--         drop     channel, message
--
-- All but look answer 1 or 0. Who waits is told by the message. A lease is written by who gets it; of those who do
-- not, only the first leaves a mark, so that nothing is published when nobody waits.

local operation, now, key = ARGV[1], time(ARGV[2]), KEYS[1]

local function stored(fields)
  local values = redis.call('HMGET', key, unpack(fields))
  local found = {}
  for i, name in ipairs(fields) do
    found[name] = values[i] or nil
  end
  return found
end

local function at(value)
  return value and number('state of ' .. key, value, -math.huge) or -math.huge
end

-- What it is good for; early is fresh too, but to be refreshed by this look.
local function freshness(entry, draw)
  if now < at(entry.e) then
    return now + at(entry.d) * draw >= at(entry.e) and 'early' or 'fresh'
  elseif now < at(entry.s) then
    return 'stale'
  end
  return now < at(entry.g) and 'spare' or 'gone'
end

local function expire(entry)
  redis.call('PEXPIRE', key, keep(math.max(now, at(entry.e), at(entry.s), at(entry.g), at(entry.l)), now))
end

local function take(entry, token, lease)
  entry.l = text(now + lease)
  redis.call('HSET', key, 't', token, 'l', entry.l)
  expire(entry)
end

local function finish(entry, channel, message)
  redis.call('HDEL', key, 't', 'l', 'w')
  if entry.w then
    redis.call('PUBLISH', channel, message)
  end
end

local function look(token, lease, draw)
  local entry = stored({'v', 'k', 'e', 's', 'g', 'd', 'p', 't', 'l', 'w'})
  local free = token ~= '' and (now >= at(entry.l) or not entry.t or entry.t == token)
  local kind, payload = '', ''
  if entry.v then
    local good, paused = freshness(entry, draw), now < at(entry.p)
    if good == 'fresh' then
      return {'fresh', entry.k, entry.v, '0'}
    elseif good == 'early' or good == 'stale' then
      if free and not paused then
        take(entry, token, lease)
        return {good == 'early' and 'early' or 'refresh', entry.k, entry.v, '0'}
      end
      return {good == 'early' and 'fresh' or 'stale', entry.k, entry.v, '0'}
    elseif good == 'spare' then
      if paused then
        return {'spare', entry.k, entry.v, '0'}
      end
      kind, payload = entry.k, entry.v
    end
  end
  if token == '' then
    return {'none', '', '', '0'}
  elseif free then
    take(entry, token, lease)
    return {'lease', kind, payload, '0'}
  elseif not entry.w then
    redis.call('HSET', key, 'w', '1')
  end
  return {'wait', kind, payload, text(at(entry.l) - now)}
end

local function store(token, kind, payload, life, stale_for, spare_for, duration, channel, message)
  local entry = stored({'t', 'w'})
  if token ~= '' and token ~= entry.t then
    return 0
  end
  local expires = now + life
  entry.e, entry.s, entry.g = text(expires), text(expires + stale_for), text(expires + spare_for)
  redis.call('HSET', key, 'v', payload, 'k', kind, 'e', entry.e, 's', entry.s, 'g', entry.g, 'd', text(duration))
  redis.call('HDEL', key, 'p')
  finish(entry, channel, message)
  expire(entry)
  return 1
end

local function renew(token, lease)
  local entry = stored({'e', 's', 'g', 't'})
  if token == '' or token ~= entry.t then
    return 0
  end
  take(entry, token, lease)
  return 1
end

local function release(token, pause, channel, message)
  local entry = stored({'e', 't', 'w'})
  if token == '' or token ~= entry.t then
    return 0
  end
  if entry.e and pause > 0 then
    redis.call('HSET', key, 'p', text(now + pause))
  end
  finish(entry, channel, message)
  return 1
end

local function drop(channel, message)
  local entry = stored({'e', 'w'})
  finish(entry, channel, message)
  redis.call('DEL', key)
  return entry.e and 1 or 0
end

if operation == 'look' then
  return look(ARGV[3], positive('lease', ARGV[4]), number('draw', ARGV[5], 0))
elseif operation == 'store' then
  local life = positive('life', ARGV[6])
  local stale_for, spare_for = number('stale_for', ARGV[7], 0), number('spare_for', ARGV[8], 0)
  local duration = number('duration', ARGV[9], 0)
  return store(ARGV[3], ARGV[4], ARGV[5], life, stale_for, spare_for, duration, ARGV[10], ARGV[11])
elseif operation == 'renew' then
  return renew(ARGV[3], positive('lease', ARGV[4]))
elseif operation == 'release' then
  return release(ARGV[3], number('pause', ARGV[4], 0), ARGV[5], ARGV[6])
elseif operation == 'drop' then
  return drop(ARGV[3], ARGV[4])
end
refuse('operation is unknown: ' .. tostring(operation))
