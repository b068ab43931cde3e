-- Slices of a limit, held by processes: the twin of machines/leased_ledger.py. After one algorithm and _limits.
--
-- KEYS  one per limit, then the ledger, all in one slot
-- ARGV  "lease", now, three per limit: limit, period, burst; then
--         surplus, holder, serial, left, returned, want, lifetime, ahead
--
-- The ledger is a hash: by holder "units until want serial first", where first is when the first of the units ends and
-- until when the last does; "-" holds what was given back while bookings lay ahead. The answer is text: units of the
-- pool, how long they last, fresh units, when the last of those becomes valid, the wait of one unit for those who hold
-- none, and the index of the limit that binds it; "stale" if a later request of this holder came first.

local POOL = '-'
local LEAST = 2 -- a slice of one unit is dearer than asking for the unit
local INTEREST = 4 -- whoever wants a slice and got none keeps its place for so many lifetimes

local ledger = KEYS[#KEYS]

local function read_request()
  return {
    surplus = positive('surplus', following()),
    holder = following(),
    serial = number('serial', following(), 1),
    left = number('left', following(), 0),
    returned = number('returned', following(), 0),
    want = number('want', following(), 0),
    lifetime = positive('lifetime', following()),
    ahead = number('ahead', following(), 0),
  }
end

-- Who holds what: ours, the pool, and the others.
local function read_ledger(request)
  local books = {others = {}, takers = 1, latest = now, dead = {}}
  local fields = redis.call('HGETALL', ledger)
  for i = 1, #fields, 2 do
    local name = fields[i]
    local units, until_when, want, serial, first = string.match(fields[i + 1], '^(%S+) (%S+) (%S+) (%S+) (%S+)$')
    local holding = {
      units = tonumber(units), until_when = tonumber(until_when), want = tonumber(want),
      serial = tonumber(serial), first = tonumber(first),
    }
    if name == request.holder and request.serial <= holding.serial then
      return nil
    elseif holding.until_when <= now then
      books.dead[#books.dead + 1] = name
    else
      if holding.units > 0 and holding.until_when > books.latest then
        books.latest = holding.until_when
      end
      if name == request.holder then
        books.mine = holding
      elseif name == POOL then
        books.pool = holding
      else
        books.takers = books.takers + 1
        books.others[#books.others + 1] = holding
      end
    end
  end
  return books
end

-- How long so many units take, and which limit binds.
local function wait_for(rules, states, units)
  for _, rule in ipairs(rules) do
    rule.cost = units
  end
  return longest_wait(rules, states)
end

-- Whether bookings lie ahead: then a full bucket takes longer than filling an empty one.
local function in_debt(rules, states)
  for i, rule in ipairs(rules) do
    if wait(rule, states[i], now, rule.capacity) > rule.capacity * rule.period / rule.limit then
      return true
    end
  end
  return false
end

-- Back into the bucket, or to whoever asks next; what is not on record any more was written off.
local function take_back(rules, states, books, returned)
  local mine = books.mine
  local units = mine and math.min(returned, mine.units) or 0
  if units <= 0 then
    return false
  elseif in_debt(rules, states) then
    local pool = books.pool or {units = 0, until_when = mine.first}
    if mine.first > now then -- else some of them may have ended
      books.pool = {units = pool.units + units, until_when = math.min(pool.until_when, mine.first)}
    end
    return false
  end
  for i, rule in ipairs(rules) do
    states[i] = refund(rule, states[i], now, units)
  end
  return true
end

-- What all slices together may hold: the surplus, and what the bucket will lack when the last of them ends.
local function cap_with(rules, states, books, request, fresh, delay)
  local until_when = math.max(books.latest, now + delay + request.lifetime)
  local cap = math.huge
  for i, rule in ipairs(rules) do
    local state = states[i]
    if fresh > 0 then
      state = take(rule, state, now, fresh, delay)
    end
    cap = math.min(cap, request.surplus * rule.limit + (rule.capacity - remaining(rule, state, until_when)))
    if delay > 0 then
      cap = math.min(cap, request.ahead * rule.limit / rule.period)
    end
  end
  return cap
end

local function pooled_in(books)
  return books.pool and books.pool.units or 0
end

-- What one slice may gain: the others keep what they hold, and what they want up to an equal share. Where that is too
-- little for all, the first to come would starve the others; what does not divide evenly is for none of them.
local function room_in(cap, books, request)
  local whole = math.floor(cap)
  local share = math.floor(whole / books.takers)
  if share < LEAST then
    return 0
  end
  local room, contested = whole - request.left - pooled_in(books), 0
  for _, other in ipairs(books.others) do
    room = room - math.max(other.units, math.min(other.want, share))
    if other.want > share and share >= other.units then
      contested = contested + 1
    end
  end
  return room - math.min(whole % books.takers, contested)
end

-- As many as lie there twice over; where nothing lies, as many as come within `ahead`.
local function wanted(rules, states, request, loose)
  local available, capacity = math.huge, math.huge
  for i, rule in ipairs(rules) do
    available = math.min(available, remaining(rule, states[i], now))
    capacity = math.min(capacity, rule.capacity)
  end
  local fresh = math.max(0, math.min(request.want - request.left - loose, math.floor(capacity)))
  local half = math.floor(available / 2)
  if half >= 1 or fresh == 0 then
    return math.min(fresh, half)
  end
  local over = 0
  for i, rule in ipairs(rules) do
    local late = wait(rule, states[i], now, fresh) - request.ahead
    over = math.max(over, math.ceil(late * rule.limit / rule.period))
  end
  return math.max(0, fresh - over)
end

local function size(rules, states, books, request, loose)
  local fresh = wanted(rules, states, request, loose)
  for _ = 1, 2 do -- less to take may end earlier, or lack less: look once more
    local cap = cap_with(rules, states, books, request, fresh, wait_for(rules, states, fresh))
    local room = room_in(cap, books, request)
    if fresh <= room then
      return fresh >= LEAST and fresh or 0
    end
    fresh = math.max(0, room)
  end
  local plain = math.huge
  for _, rule in ipairs(rules) do
    plain = math.min(plain, request.surplus * rule.limit)
  end
  fresh = math.min(fresh, room_in(plain, books, request))
  return fresh >= LEAST and fresh or 0
end

-- When the first and the last of what a holder has ends.
local function ends_of(books, request, loose, fresh, delay)
  local first, until_when = math.huge, 0
  local function add(moment)
    first, until_when = math.min(first, moment), math.max(until_when, moment)
  end
  if request.left > 0 then
    add(books.mine and books.mine.first or now)
    add(books.mine and books.mine.until_when or now + request.lifetime)
  end
  if loose > 0 then
    add(books.pool.until_when)
  end
  if fresh > 0 then
    add(now + delay + request.lifetime)
  end
  if until_when == 0 then
    add(now + INTEREST * request.lifetime)
  end
  return first, until_when
end

local function note(name, ...)
  local words = {...}
  for i, number in ipairs(words) do
    words[i] = text(number)
  end
  redis.call('HSET', ledger, name, table.concat(words, ' '))
end

local function write_ledger(books, request, loose, fresh, delay)
  for _, name in ipairs(books.dead) do
    redis.call('HDEL', ledger, name)
  end
  local pooled = pooled_in(books)
  if pooled > loose then
    note(POOL, pooled - loose, books.pool.until_when, 0, 0, books.pool.until_when)
  elseif books.pool then
    redis.call('HDEL', ledger, POOL)
  end
  local units = request.left + loose + fresh
  if units > 0 or request.want > 0 then
    local first, until_when = ends_of(books, request, loose, fresh, delay)
    note(request.holder, units, until_when, request.want, request.serial, first)
    redis.call('PEXPIRE', ledger, keep(math.max(until_when, books.latest), now))
  else
    redis.call('HDEL', ledger, request.holder)
  end
end

local function lease(rules, states, request)
  local books = read_ledger(request)
  if not books then
    return 'stale'
  end
  local changed = take_back(rules, states, books, request.returned)
  local loose = math.max(0, math.min(pooled_in(books), request.want - request.left))
  local fresh = size(rules, states, books, request, loose)
  local delay = wait_for(rules, states, fresh)
  for i, rule in ipairs(rules) do
    if fresh > 0 then
      states[i] = take(rule, states[i], now, fresh, delay)
    end
    if changed or fresh > 0 then
      store(rule, states[i])
    end
  end
  write_ledger(books, request, loose, fresh, delay)
  local lasts = loose > 0 and books.pool.until_when - now or 0
  local others, binding = wait_for(rules, states, 1)
  return table.concat(
    {text(loose), text(lasts), text(fresh), text(delay), text(others), text(binding - 1)}, ',')
end

if operation ~= 'lease' then
  refuse('operation is unknown: ' .. tostring(operation))
end
local rules = read_rules(#KEYS - 1)
return lease(rules, read_states(#rules), read_request())
