-- Last part of every script: the operations over all limits of a key, all or none (machines: decide.py).
--
-- Replies, as text: acquire and peek {"1" or "0", wait, binding, remaining..., position...} where positions
-- follow only what was booked; refund and reset the number of keys they changed.

local operation, now = ARGV[1], time(ARGV[2])

local function read_rules()
  local rules = {}
  for i = 1, #KEYS do
    local at = 4 * i
    local rule = {
      key = KEYS[i],
      limit = positive('limit', ARGV[at]),
      period = positive('period', ARGV[at + 1]),
      burst = positive('burst', ARGV[at + 2]),
    }
    prepare(rule)
    rule.cost = positive('cost', ARGV[at + 3])
    if rule.cost > rule.capacity then
      refuse('cost must be at most ' .. text(rule.capacity) .. ', got ' .. text(rule.cost))
    end
    rules[i] = rule
  end
  return rules
end

local function read_states()
  local states = {}
  for i, key in ipairs(KEYS) do
    states[i] = load(key) or false
  end
  return states
end

local function longest_wait(rules, states)
  local longest, binding = 0, 1
  for i, rule in ipairs(rules) do
    local own = wait(rule, states[i], now, rule.cost)
    if own > longest then
      longest, binding = own, i
    end
  end
  return longest, binding
end

local function store(rule, state)
  if state then
    save(rule.key, state, keep(fresh_at(rule, state), now))
  else
    redis.call('DEL', rule.key)
  end
end

local function answer(allowed, delay, binding, rules, states)
  local reply = {allowed and '1' or '0', text(delay), text(binding - 1)}
  for i, rule in ipairs(rules) do
    reply[3 + i] = text(remaining(rule, states[i], now))
  end
  return reply
end

local function acquire(rules, states)
  local delay, binding = longest_wait(rules, states)
  if delay > number('max_wait', ARGV[3], 0) then
    return answer(false, delay, binding, rules, states)
  end
  for i, rule in ipairs(rules) do
    states[i] = take(rule, states[i], now, rule.cost, delay)
    store(rule, states[i])
  end
  local reply = answer(true, delay, binding, rules, states)
  for i = 1, #states do
    reply[#reply + 1] = position(states[i])
  end
  return reply
end

local function peek(rules, states)
  local delay, binding = longest_wait(rules, states)
  return answer(delay <= 0, delay, binding, rules, states)
end

-- Positions that are given must all still be the last: then nothing was booked after.
local function give_back(rules, states)
  for i in ipairs(rules) do
    local mark = ARGV[4 * #KEYS + 3 + i]
    if mark ~= '' and (not states[i] or position(states[i]) ~= mark) then
      return 0
    end
  end
  for i, rule in ipairs(rules) do
    if states[i] then
      store(rule, refund(rule, states[i], now, rule.cost))
    end
  end
  return #KEYS
end

if operation == 'reset' then
  return redis.call('DEL', unpack(KEYS))
elseif operation == 'acquire' then
  return acquire(read_rules(), read_states())
elseif operation == 'peek' then
  return peek(read_rules(), read_states())
elseif operation == 'refund' then
  return give_back(read_rules(), read_states())
end
refuse('operation is unknown: ' .. tostring(operation))
