-- Last part of the scripts that keep account: what is charged or lowered without asking, and reservations.
--
-- observe, drain and charge return the number of keys they changed. The last key of reserve and settle is the record of one
-- reservation: "1" if it is settled, from when it is valid, the index of the limit that bound, what each limit was
-- charged and, until it is settled, the position of each, and of what is booked ahead the positions before, with
-- commas between (machines: reserve.py). reserve returns an answer and, if it allows, a semicolon, whether it is
-- settled, and what each limit was charged; settle returns 1 if that was what settled it, else 0. An empty argument is
-- a limit that takes no part.

local function optional(name)
  local value = following()
  return value ~= '' and number(name, value, 0) or nil
end

-- Store what a function of a limit changed.
local function put(rule, old, new)
  if new == old then
    return 0
  end
  store(rule, new)
  return 1
end

local function observe_all(rules, states)
  local changed = 0
  for i, rule in ipairs(rules) do
    local left, reset_after = optional('remaining'), optional('reset_after')
    if left and reset_after then
      changed = changed + put(rule, states[i], observe(rule, states[i], now, left, reset_after))
    end
  end
  return changed
end

local function drain_all(rules, states)
  local changed = 0
  for i, rule in ipairs(rules) do
    local delay = optional('seconds')
    if delay then
      changed = changed + put(rule, states[i], drain(rule, states[i], now, delay))
    end
  end
  return changed
end

local function charge_all(rules, states)
  local changed = 0
  for i, rule in ipairs(rules) do
    local amount = optional('amount')
    if amount and amount > 0 then
      changed = changed + put(rule, states[i], charge(rule, states[i], now, amount))
    end
  end
  return changed
end

local function read_record(key, count)
  local stored = redis.call('GET', key)
  if not stored then
    return nil
  end
  local fields = {}
  for field in string.gmatch(stored .. ',', '([^,]*),') do
    fields[#fields + 1] = field
  end
  local record = {settled = fields[1] == '1', valid_at = tonumber(fields[2]), binding = tonumber(fields[3])}
  record.costs, record.marks, record.before = {}, {}, {}
  for i = 1, count do
    record.costs[i] = tonumber(fields[3 + i])
    record.marks[i] = fields[3 + count + i]
    record.before[i] = fields[3 + 2 * count + i]
  end
  return record
end

local function charged(costs)
  local words = {}
  for i, cost in ipairs(costs) do
    words[i] = text(cost)
  end
  return table.concat(words, ',')
end

local function write_record(key, record, ttl)
  local stored = (record.settled and '1,' or '0,') .. text(record.valid_at) .. ',' .. text(record.binding)
  stored = stored .. ',' .. charged(record.costs)
  if not record.settled then
    stored = stored .. ',' .. record.marks
  end
  redis.call('SET', key, stored, 'PX', keep(math.max(record.valid_at, now) + ttl, now))
end

-- The same id is charged once, and gets the same answer whenever it comes again.
local function reserve(rules, states, key)
  read_costs(rules)
  local patience, ttl = number('max_wait', following(), -9e15), positive('ttl', following())
  local record = read_record(key, #rules)
  if record then
    local delay = math.max(record.valid_at - now, 0)
    local said = answer(true, delay, record.binding + 1, rules, states)
    return said .. ';' .. (record.settled and '1,' or '0,') .. charged(record.costs)
  end
  local delay, binding = longest_wait(rules, states)
  if delay > patience then
    return answer(false, delay, binding, rules, states)
  end
  local before = delay > 0 and undoable and ',' .. positions(states) or ''
  book(rules, states, delay)
  store_changed(rules, states)
  record = {settled = false, valid_at = now + delay, binding = binding - 1, costs = {}}
  record.marks = positions(states) .. before
  for i, rule in ipairs(rules) do
    record.costs[i] = rule.cost
  end
  write_record(key, record, ttl)
  return answer(true, delay, binding, rules, states) .. ';0,' .. charged(record.costs)
end

-- A permit that is not valid yet is given back only where nothing was booked after it.
local function settle_one(rule, state, record, i, actual)
  local reserved = record.costs[i]
  if actual > reserved then
    store(rule, charge(rule, state, now, actual - reserved))
  elseif actual < reserved and state then
    local early = now < record.valid_at
    if early and position(state) ~= record.marks[i] then
      return reserved
    end
    if early and actual == 0 and record.before[i] then
      store(rule, state_at(record.before[i]))
    else
      store(rule, refund(rule, state, now, reserved - actual))
    end
  end
  return actual
end

local function settle(rules, states, key)
  local ttl, known = positive('ttl', following()), following() == '1'
  local actual = {}
  for i = 1, #rules do
    actual[i] = optional('actual')
  end
  local record = read_record(key, #rules)
  if record and record.settled or known and not record then
    return 0
  end
  if not record then
    record = {valid_at = now, binding = 0, costs = {}, marks = {}}
    for i = 1, #rules do
      record.costs[i] = 0
    end
  end
  for i, rule in ipairs(rules) do
    record.costs[i] = settle_one(rule, states[i], record, i, actual[i] or record.costs[i])
  end
  record.settled, record.valid_at = true, now
  write_record(key, record, ttl)
  return 1
end

if operation == 'observe' then
  return observe_all(read_rules(#KEYS), read_states(#KEYS))
elseif operation == 'drain' then
  return drain_all(read_rules(#KEYS), read_states(#KEYS))
elseif operation == 'charge' then
  return charge_all(read_rules(#KEYS), read_states(#KEYS))
elseif operation == 'reserve' then
  return reserve(read_rules(#KEYS - 1), read_states(#KEYS - 1), KEYS[#KEYS])
elseif operation == 'settle' then
  return settle(read_rules(#KEYS - 1), read_states(#KEYS - 1), KEYS[#KEYS])
end
refuse('operation is unknown: ' .. tostring(operation))
