-- First part of every script: numbers in and out, and the time.
--
-- KEYS  one per limit, all in one slot; for reserve and settle then that of the reservation
-- ARGV  operation, now, then three per limit: limit, period, burst; then
--         acquire  groups of equal requests in order of arrival: how many, max_wait, one cost per limit
--                  (acquire_packed: the same for those who can read bytes)
--         peek     one cost per limit
--         refund   one cost per limit, one position per limit ("" refunds whatever was booked after) and, to undo
--                  what is booked ahead, one position before per limit
--         observe  two per limit: what remains elsewhere, and after how long there is more
--         drain    one per limit: how long nothing is to fit
--         reserve  one cost per limit, max_wait, how long an id is remembered
--         settle   how long an id is remembered, "1" if it is known to have been reserved, one actual cost per limit
--
-- Times are microseconds. Numbers travel as %.17g text: replies truncate numbers, tostring loses digits.

local format = string.format

-- Whole numbers look the same either way and cost half as much; not on servers whose integers are short.
local whole = format('%d', 9e15) == '9000000000000000'

local function text(number)
  if whole and number % 1 == 0 and number < 9e15 and number > -9e15 then
    return format('%d', number)
  end
  return format('%.17g', number)
end

-- Plain text: servers before 7.0 cannot raise a table.
local function refuse(reason)
  error('RESILIENCE ' .. reason, 0)
end

-- A finite number of at least `least`; NaN passes every comparison the other way round, so ask positively.
local function number(name, value, least)
  local parsed = tonumber(value)
  if parsed and parsed >= least and parsed < math.huge then
    return parsed
  end
  refuse(name .. ' must be a finite number of at least ' .. least .. ', got ' .. tostring(value))
end

local function positive(name, value)
  local parsed = number(name, value, 0)
  if parsed > 0 then
    return parsed
  end
  refuse(name .. ' must be greater than 0, got ' .. tostring(value))
end

-- The caller's time in tests, the server's own otherwise: no client clock ever decides.
local function time(given)
  if given ~= '' then
    return number('now', given, 0)
  end
  local now = redis.call('TIME')
  return tonumber(now[1]) * 1000000 + tonumber(now[2])
end

-- Milliseconds a key is kept after its last use: garbage collection, a minute beyond any meaning, never 0.
local function keep(fresh_at, now)
  local rest = math.ceil((fresh_at - now) / 1000)
  if rest < 0 then
    rest = 0
  end
  return string.format('%.0f', math.min(rest, 9e15) + 60000)
end

-- Whether a state in hand says how the stored one changes, so that every step is stored before the next.
local incremental = false

-- Whether what is booked ahead can be undone by the position before; else it is refunded.
local undoable = true

-- States of plain numbers are one string, separated by spaces.
local function load_numbers(key)
  local stored = redis.call('GET', key)
  if not stored then
    return nil
  end
  local state = {}
  for word in string.gmatch(stored, '%S+') do
    state[#state + 1] = number('state of ' .. key, word, -math.huge)
  end
  return state
end

-- The position of such a state says all of it.
local function state_at(position)
  if position == '' then
    return nil
  end
  local state = {}
  for word in string.gmatch(position, '%S+') do
    state[#state + 1] = number('position', word, -math.huge)
  end
  return state
end

local function save_numbers(key, state, expiry)
  local words = {}
  for i, value in ipairs(state) do
    words[i] = text(value)
  end
  redis.call('SET', key, table.concat(words, ' '), 'PX', expiry)
end
