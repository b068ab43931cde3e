-- GCRA: the twin of machines/rate_limiter/gcra.py, function by function. State: the arrival time.

local function prepare(rule)
  rule.capacity = rule.burst
  rule.interval = rule.period / rule.limit
  rule.tolerance = rule.interval * rule.burst
  rule.grace = rule.interval * 0.001
end

local load, save = load_numbers, save_numbers

local function wait(rule, state, now, cost)
  if not state or state[1] - now <= (rule.tolerance - cost * rule.interval) + rule.grace then
    return 0
  end
  return (state[1] - now) + (cost * rule.interval - rule.tolerance)
end

local function take(rule, state, now, cost, delay)
  local start = now + delay
  if state and state[1] > start then
    start = state[1]
  end
  return {start + cost * rule.interval}
end

local function refund(rule, state, now, cost)
  if not state then
    return nil
  end
  local arrival = state[1] - cost * rule.interval
  return arrival > now and {arrival} or nil
end

local function charge(rule, state, now, amount)
  return take(rule, state, now, amount, 0)
end

local function drain(rule, state, now, delay)
  local empty = now + delay + rule.tolerance
  return (not state or state[1] < empty) and {empty} or state
end

local function observe(rule, state, now, left, reset_after)
  if left <= 0 then
    return drain(rule, state, now, reset_after)
  end
  if left >= rule.burst then
    return state
  end
  local lowered = now + (rule.tolerance - left * rule.interval)
  return (not state or state[1] < lowered) and {lowered} or state
end

local function remaining(rule, state, now)
  if not state or state[1] <= now then
    return rule.burst
  end
  local left = (rule.tolerance - (state[1] - now)) / rule.interval
  return left > 0 and left or 0
end

local function fresh_at(rule, state)
  return state[1]
end

local function place(state)
  return state[1]
end
