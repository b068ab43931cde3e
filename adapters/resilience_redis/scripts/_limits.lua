-- After the prelude and one algorithm: the limits of a key, their states, and the answer to one request.
--
-- A limit whose cost is 0 takes no part: it is neither asked nor booked (machines: decide.py). An answer is text, its
-- fields between commas: "1" or "0", wait, binding, remaining... .

local operation, now = ARGV[1], time(ARGV[2])
local last = 2 -- the argument that was read last

local function following()
  last = last + 1
  return ARGV[last]
end

local function read_rules(count)
  local rules = {}
  for i = 1, count do
    local rule = {
      key = KEYS[i],
      limit = positive('limit', following()),
      period = positive('period', following()),
      burst = positive('burst', following()),
    }
    prepare(rule)
    rules[i] = rule
  end
  return rules
end

local function read_costs(rules)
  local charged = false
  for i = 1, #rules do
    local rule = rules[i]
    rule.cost = number('cost', following(), 0)
    if rule.cost > rule.capacity then
      refuse('cost must be at most ' .. text(rule.capacity) .. ', got ' .. text(rule.cost))
    end
    charged = charged or rule.cost > 0
  end
  if not charged then
    refuse('cost must be greater than 0 for one limit at least')
  end
end

local function read_states(count)
  local states = {}
  for i = 1, count do
    states[i] = load(KEYS[i]) or false
  end
  return states
end

local function longest_wait(rules, states)
  local longest, binding = 0, 1
  for i = 1, #rules do
    local cost = rules[i].cost
    local own = cost > 0 and wait(rules[i], states[i], now, cost) or 0
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

local function store_changed(rules, states)
  for i = 1, #rules do
    if rules[i].changed then
      store(rules[i], states[i])
      rules[i].changed = false
    end
  end
end

-- Where a state says how the stored one changes, every step is stored before the next; else the caller stores once.
local function book(rules, states, delay)
  for i = 1, #rules do
    local rule = rules[i]
    if rule.cost > 0 then
      states[i] = take(rule, states[i], now, rule.cost, delay)
      rule.changed = true
    end
  end
  if incremental then
    store_changed(rules, states)
  end
end

local function answer(allowed, delay, binding, rules, states)
  local left = text(remaining(rules[1], states[1], now))
  for i = 2, #rules do
    left = left .. ',' .. text(remaining(rules[i], states[i], now))
  end
  if delay == 0 then
    return (allowed and '1,0,0,' or '0,0,0,') .. left
  end
  return (allowed and '1,' or '0,') .. text(delay) .. ',' .. text(binding - 1) .. ',' .. left
end

local function in_words(first, ...)
  if select('#', ...) == 0 then
    return text(first)
  end
  return text(first) .. ' ' .. in_words(...)
end

-- The numbers that `place` of the algorithm names, as text: what a refund must find unchanged.
local function position(state)
  return in_words(place(state))
end

-- What is not there has the empty position.
local function positions(states)
  local marks = states[1] and position(states[1]) or ''
  for i = 2, #states do
    marks = marks .. ',' .. (states[i] and position(states[i]) or '')
  end
  return marks
end
