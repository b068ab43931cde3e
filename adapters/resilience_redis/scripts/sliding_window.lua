-- Sliding window counter: the twin of machines/rate_limiter/sliding_window.py.
-- State: window, units in it, units in the window before.

local function prepare(rule)
  rule.capacity = rule.limit
end

local load, save = load_numbers, save_numbers

local function index_of(rule, moment)
  return math.floor(moment / rule.period)
end

local function counts_at(rule, state, moment)
  local current = index_of(rule, moment)
  if not state or state[1] < current - 1 then
    return current, 0, 0
  end
  if state[1] == current - 1 then
    return current, 0, state[2]
  end
  return state[1], state[2], state[3]
end

local function wait(rule, state, now, cost)
  local window, current, previous = counts_at(rule, state, now)
  local room = rule.limit - cost - current
  if room < 0 then
    window, previous, room = window + 1, current, rule.limit - cost
  end
  local start = window * rule.period
  if previous > room + 1 then
    start = start + (1 - (room + 1) / previous) * rule.period
  elseif window <= index_of(rule, now) then
    return 0
  end
  return start > now and start - now or 0
end

local function take(rule, state, now, cost, delay)
  local window, current, previous = counts_at(rule, state, now + delay)
  if current + cost > rule.limit then
    return {window + 1, cost, current}
  end
  return {window, current + cost, previous}
end

local function refund(rule, state, now, cost)
  if not state then
    return nil
  end
  local window, current, previous = state[1], state[2], state[3]
  if current > cost then
    return {window, current - cost, previous}
  end
  previous = previous - (cost - current)
  if previous < 0 then
    previous = 0
  end
  if window > index_of(rule, now) then
    return {window - 1, previous, rule.limit}
  end
  return previous > 0 and {window, 0, previous} or nil
end

local function remaining(rule, state, now)
  local window, current, previous = counts_at(rule, state, now)
  local elapsed = now / rule.period - window
  if elapsed < 0 then
    return 0
  end
  local weight = previous * (1 - elapsed) - 1
  local left = rule.limit - ((weight > 0 and weight or 0) + current)
  return left > 0 and left or 0
end

local function fresh_at(rule, state)
  return (state[1] + 2) * rule.period
end

local function position(state)
  return text(state[1]) .. ' ' .. text(state[2]) .. ' ' .. text(state[3])
end
