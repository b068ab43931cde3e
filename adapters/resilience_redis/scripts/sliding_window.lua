-- Sliding window counter: the twin of machines/rate_limiter/sliding_window.py.
-- State: window, units in it, units in the window before, the moment in it before which nothing fits.

local OPEN = 0

local function prepare(rule)
  rule.capacity = rule.limit
end

local save = save_numbers

local function load(key)
  local state = load_numbers(key)
  if state then
    state[4] = state[4] or OPEN -- was not kept once
  end
  return state
end

local function index_of(rule, moment)
  return math.floor(moment / rule.period)
end

local function counts_at(rule, state, moment)
  local current = index_of(rule, moment)
  if not state or state[1] < current - 1 then
    return current, 0, 0, OPEN
  end
  if state[1] == current - 1 then
    return current, 0, state[2], OPEN
  end
  return state[1], state[2], state[3], state[4]
end

local function wait(rule, state, now, cost)
  local window, current, previous, start = counts_at(rule, state, now)
  local room = rule.limit - cost - current
  if room < 0 then
    window, previous, room, start = window + 1, current, rule.limit - cost, OPEN
  end
  local begin = window * rule.period
  if previous > room + 1 then
    begin = begin + (1 - (room + 1) / previous) * rule.period
  elseif window <= index_of(rule, now) and start <= now then
    return 0
  end
  if start > begin then
    begin = start
  end
  return begin > now and begin - now or 0
end

local function take(rule, state, now, cost, delay)
  local window, current, previous, start = counts_at(rule, state, now + delay)
  if current + cost > rule.limit then
    return {window + 1, cost, current, OPEN}
  end
  return {window, current + cost, previous, start}
end

local function charge(rule, state, now, amount)
  local window, current, previous, start = counts_at(rule, state, now)
  current = current + amount
  if current <= rule.limit then
    return {window, current, previous, start}
  end
  local ahead = math.ceil(current / rule.limit) - 1
  return {window + ahead, current - ahead * rule.limit, rule.limit, OPEN}
end

local function drain(rule, state, now, delay)
  local moment = now + delay
  local window, current, previous, start = counts_at(rule, state, moment)
  if window > index_of(rule, moment) then
    return state
  end
  if delay <= 0 then
    return current < rule.limit and {window, rule.limit, previous, start} or state
  end
  return start < moment and {window, current, previous, moment} or state
end

local function refund(rule, state, now, cost)
  if not state then
    return nil
  end
  local window, current, previous, start = state[1], state[2], state[3], state[4]
  if current > cost then
    return {window, current - cost, previous, start}
  end
  previous = previous - (cost - current)
  if previous < 0 then
    previous = 0
  end
  if start > now then
    return {window, 0, previous, start}
  end
  if window > index_of(rule, now) then
    return {window - 1, previous, rule.limit, OPEN}
  end
  return previous > 0 and {window, 0, previous, OPEN} or nil
end

local function remaining(rule, state, now)
  local window, current, previous, start = counts_at(rule, state, now)
  local elapsed = now / rule.period - window
  if elapsed < 0 or start > now then
    return 0
  end
  local weight = previous * (1 - elapsed) - 1
  local left = rule.limit - ((weight > 0 and weight or 0) + current)
  return left > 0 and left or 0
end

local function observe(rule, state, now, left, reset_after)
  if left <= 0 then
    return drain(rule, state, now, reset_after)
  end
  local surplus = remaining(rule, state, now) - left
  if surplus <= 0 then
    return state
  end
  local window, current, previous, start = counts_at(rule, state, now)
  return {window, current + surplus, previous, start}
end

local function fresh_at(rule, state)
  return (state[1] + 2) * rule.period
end

local function place(state)
  return state[1], state[2], state[3], state[4]
end
