-- Fixed window: the twin of machines/rate_limiter/fixed_window.py.
-- State: window, units in it, the moment in it before which nothing fits.

local OPEN = 0

local function prepare(rule)
  rule.capacity = rule.limit
end

local save = save_numbers

local function load(key)
  local state = load_numbers(key)
  if state then
    state[3] = state[3] or OPEN -- was not kept once
  end
  return state
end

local function index_of(rule, moment)
  return math.floor(moment / rule.period)
end

local function wait(rule, state, now, cost)
  if not state then
    return 0
  end
  local window, used, start = state[1], state[2], state[3]
  local current = index_of(rule, now)
  if window >= current and used + cost > rule.limit then
    window, start = window + 1, OPEN
  end
  if window > current and start == OPEN then
    start = window * rule.period
  end
  return (window >= current and start > now) and start - now or 0
end

local function take(rule, state, now, cost, delay)
  local current = index_of(rule, now + delay)
  if not state or state[1] < current then
    return {current, cost, OPEN}
  end
  local window, used, start = state[1], state[2], state[3]
  if used + cost > rule.limit then
    return {window + 1, cost, OPEN}
  end
  return {window, used + cost, start}
end

local function count_at(rule, state, moment)
  local current = index_of(rule, moment)
  if not state or state[1] < current then
    return current, 0, OPEN
  end
  return state[1], state[2], state[3]
end

local function charge(rule, state, now, amount)
  local window, used, start = count_at(rule, state, now)
  used = used + amount
  if used <= rule.limit then
    return {window, used, start}
  end
  local ahead = math.ceil(used / rule.limit) - 1
  return {window + ahead, used - ahead * rule.limit, OPEN}
end

local function drain(rule, state, now, delay)
  local moment = now + delay
  local window, used, start = count_at(rule, state, moment)
  if window > index_of(rule, moment) then
    return state
  end
  if delay <= 0 then
    return used < rule.limit and {window, rule.limit, start} or state
  end
  return start < moment and {window, used, moment} or state
end

local function observe(rule, state, now, left, reset_after)
  if left <= 0 then
    return drain(rule, state, now, reset_after)
  end
  local window, used, start = count_at(rule, state, now)
  if window > index_of(rule, now) or left >= rule.limit - used then
    return state
  end
  return {window, rule.limit - left, start}
end

local function refund(rule, state, now, cost)
  if not state then
    return nil
  end
  local window, used, start = state[1], state[2], state[3]
  if used > cost then
    return {window, used - cost, start}
  end
  if start > now then
    return {window, 0, start}
  end
  return window > index_of(rule, now) and {window - 1, rule.limit, OPEN} or nil
end

local function remaining(rule, state, now)
  if not state then
    return rule.limit
  end
  local window, used, start = state[1], state[2], state[3]
  local current = index_of(rule, now)
  if window < current then
    return rule.limit
  end
  return (window == current and used < rule.limit and start <= now) and rule.limit - used or 0
end

local function fresh_at(rule, state)
  return (state[1] + 1) * rule.period
end

local function place(state)
  return state[1], state[2], state[3]
end
