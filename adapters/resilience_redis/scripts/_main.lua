-- Last part of every script: the operations over all limits of a key, all or none (machines: decide.py).
--
-- An answer is text, its fields between commas: "1" or "0", wait, binding, remaining... and, where something was
-- booked, positions... . acquire answers request after request, with semicolons between; a refusal speaks for the
-- rest of its group. peek gives one answer; refund and reset return the number of keys they changed.

local operation, now = ARGV[1], time(ARGV[2])
local last = 2 -- the argument that was read last

local function following()
  last = last + 1
  return ARGV[last]
end

local function read_rules()
  local rules = {}
  for i = 1, #KEYS do
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
  for i = 1, #rules do
    local rule = rules[i]
    rule.cost = positive('cost', following())
    if rule.cost > rule.capacity then
      refuse('cost must be at most ' .. text(rule.capacity) .. ', got ' .. text(rule.cost))
    end
  end
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
  for i = 1, #rules do
    local own = wait(rules[i], states[i], now, rules[i].cost)
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

local function store_all(rules, states)
  for i = 1, #rules do
    store(rules[i], states[i])
  end
end

local function book(rules, states, delay)
  for i = 1, #rules do
    states[i] = take(rules[i], states[i], now, rules[i].cost, delay)
  end
  if incremental then
    store_all(rules, states)
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

local function positions(states)
  local marks = position(states[1])
  for i = 2, #states do
    marks = marks .. ',' .. position(states[i])
  end
  return marks
end

-- One after the other, as if each had come alone at this moment; the states are loaded and saved once.
local function acquire(rules, states)
  local answers, n, booked = {}, 0, false
  while ARGV[last + 1] do
    local count = number('count', following(), 1)
    local patience = number('max_wait', following(), -9e15)
    read_costs(rules)
    for _ = 1, count do
      local delay, binding = longest_wait(rules, states)
      n = n + 1
      if delay > patience then -- nothing changes, so equal requests hear the same
        answers[n] = answer(false, delay, binding, rules, states)
        break
      end
      book(rules, states, delay)
      answers[n] = answer(true, delay, binding, rules, states) .. ',' .. positions(states)
      booked = true
    end
  end
  if booked and not incremental then
    store_all(rules, states)
  end
  return table.concat(answers, ';')
end

local function peek(rules, states)
  read_costs(rules)
  local delay, binding = longest_wait(rules, states)
  return answer(delay <= 0, delay, binding, rules, states)
end

-- Positions that are given must all still be the last: then nothing was booked after.
local function give_back(rules, states)
  read_costs(rules)
  for i = 1, #rules do
    local mark = following()
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
