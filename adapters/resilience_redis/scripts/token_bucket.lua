-- Token bucket: the twin of machines/rate_limiter/token_bucket.py. State: tokens, time of the count.

local function prepare(rule)
  rule.capacity = rule.burst
  rule.rate = rule.limit / rule.period
end

local load, save = load_numbers, save_numbers

local function tokens_at(rule, state, now)
  if not state then
    return rule.burst
  end
  local tokens = state[1]
  if now > state[2] then
    tokens = tokens + (now - state[2]) * rule.rate
  end
  return tokens < rule.burst and tokens or rule.burst
end

local function wait(rule, state, now, cost)
  local tokens = tokens_at(rule, state, now)
  return tokens < cost and (cost - tokens) / rule.rate or 0
end

local function take(rule, state, now, cost, delay)
  local tokens = tokens_at(rule, state, now)
  local full = rule.burst - delay * rule.rate
  if full < tokens then
    tokens = full
  end
  return {tokens - cost, (not state or now > state[2]) and now or state[2]}
end

local function refund(rule, state, now, cost)
  if not state then
    return nil
  end
  local refunded = {state[1] + cost, state[2]}
  return tokens_at(rule, refunded, now) < rule.burst and refunded or nil
end

local function charge(rule, state, now, amount)
  return take(rule, state, now, amount, 0)
end

local function lowered(rule, state, now, most)
  if state and tokens_at(rule, state, now) <= most then
    return state
  end
  return {most, (not state or now > state[2]) and now or state[2]}
end

local function drain(rule, state, now, delay)
  return lowered(rule, state, now, 0 - delay * rule.rate)
end

local function observe(rule, state, now, left, reset_after)
  if left <= 0 then
    return drain(rule, state, now, reset_after)
  end
  if left >= tokens_at(rule, state, now) then
    return state
  end
  return lowered(rule, state, now, left)
end

local function remaining(rule, state, now)
  local tokens = tokens_at(rule, state, now)
  return tokens > 0 and tokens or 0
end

local function fresh_at(rule, state)
  return state[2] + (rule.burst - state[1]) / rule.rate
end

local function place(state)
  return state[1], state[2]
end
