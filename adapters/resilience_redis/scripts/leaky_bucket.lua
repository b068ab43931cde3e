-- Leaky bucket: the twin of machines/rate_limiter/leaky_bucket.py. State: when the next may go.

local function prepare(rule)
  rule.capacity = math.max(rule.limit, 1)
  rule.interval = rule.period / rule.limit
end

local load, save = load_numbers, save_numbers

local function wait(rule, state, now, cost)
  return (state and state[1] > now) and state[1] - now or 0
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
  local following = state[1] - cost * rule.interval
  return following > now and {following} or nil
end

local function charge(rule, state, now, amount)
  return take(rule, state, now, amount, 0)
end

local function drain(rule, state, now, delay)
  local following = now + (delay > rule.interval and delay or rule.interval)
  return (not state or state[1] < following) and {following} or state
end

local function observe(rule, state, now, left, reset_after)
  return left <= 0 and drain(rule, state, now, reset_after) or state
end

local function remaining(rule, state, now)
  return (not state or state[1] <= now) and rule.capacity or 0
end

local function fresh_at(rule, state)
  return state[1]
end

local function place(state)
  return state[1]
end
