-- Fixed window: the twin of machines/rate_limiter/fixed_window.py. State: window, units in it.

local function prepare(rule)
  rule.capacity = rule.limit
end

local load, save = load_numbers, save_numbers

local function index_of(rule, moment)
  return math.floor(moment / rule.period)
end

local function wait(rule, state, now, cost)
  if not state then
    return 0
  end
  local window, used = state[1], state[2]
  local current = index_of(rule, now)
  if window >= current and used + cost > rule.limit then
    window = window + 1
  end
  return window > current and window * rule.period - now or 0
end

local function take(rule, state, now, cost, delay)
  local current = index_of(rule, now + delay)
  if not state or state[1] < current then
    return {current, cost}
  end
  local window, used = state[1], state[2]
  if used + cost > rule.limit then
    return {window + 1, cost}
  end
  return {window, used + cost}
end

local function refund(rule, state, now, cost)
  if not state then
    return nil
  end
  local window, used = state[1], state[2]
  if used > cost then
    return {window, used - cost}
  end
  return window > index_of(rule, now) and {window - 1, rule.limit} or nil
end

local function remaining(rule, state, now)
  if not state then
    return rule.limit
  end
  local window, used = state[1], state[2]
  local current = index_of(rule, now)
  if window < current then
    return rule.limit
  end
  return (window == current and used < rule.limit) and rule.limit - used or 0
end

local function fresh_at(rule, state)
  return (state[1] + 1) * rule.period
end

local function position(state)
  return text(state[1]) .. ' ' .. text(state[2])
end
