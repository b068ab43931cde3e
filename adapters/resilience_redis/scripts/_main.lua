-- Last part of the scripts that decide: the operations over all limits of a key, all or none.
--
-- acquire answers request after request, with semicolons between, and adds to what was booked the positions, and for
-- what is booked ahead the positions before; a refusal speaks for the rest of its group. acquire_packed does the same;
-- if all may go at once on a single limit it answers in binary form, at half the price: a byte that says how many
-- numbers there are to each, and these as doubles, what remains and the position. peek gives one answer; refund and
-- reset return the number of keys they changed.

-- Grants at once on a single limit, not put into words as long as there is nothing else: what remains, the position.
local grants, length, width = {}, 0, 1
local packed = operation == 'acquire_packed'

local function width_of(...)
  return 1 + select('#', ...)
end

local function in_packed_form()
  return string.char(width) .. struct.pack('<' .. string.rep('d', length), unpack(grants, 1, length))
end

-- Something else came up: put the grants into words, too.
local function unpacked(answers)
  for first = 1, length, width do
    answers[#answers + 1] = '1,0,0,' .. text(grants[first]) .. ',' .. in_words(unpack(grants, first + 1, first + width - 1))
  end
  packed, length = false, 0
end

-- Equal requests to a single limit, which are most: the same as below, without the detours of several limits.
local function acquire_equal(rule, states, count, patience, answers)
  local state, cost = states[1], rule.cost
  for _ = 1, count do
    local delay = wait(rule, state, now, cost)
    if packed and (delay > 0 or delay > patience) then
      unpacked(answers)
    end
    if delay > patience then
      answers[#answers + 1] = answer(false, delay, 1, {rule}, {state})
      break
    end
    local before = delay > 0 and undoable and ',' .. positions(states) or ''
    state = take(rule, state, now, cost, delay)
    states[1], rule.changed = state, true
    if incremental then
      store_changed({rule}, states)
    end
    if packed then
      if length == 0 then
        width = width_of(place(state))
      end
      grants[length + 1] = remaining(rule, state, now)
      grants[length + 2], grants[length + 3], grants[length + 4], grants[length + 5] = place(state)
      length = length + width
    else
      local lead = delay == 0 and '1,0,0,' or '1,' .. text(delay) .. ',0,'
      answers[#answers + 1] = lead .. text(remaining(rule, state, now)) .. ',' .. position(state) .. before
    end
  end
end

-- One after the other, as if each had come alone at this moment; the states are loaded and saved once.
local function acquire(rules, states)
  local answers = {}
  while ARGV[last + 1] do
    local count = number('count', following(), 1)
    local patience = number('max_wait', following(), -9e15)
    read_costs(rules)
    if #rules == 1 then
      acquire_equal(rules[1], states, count, patience, answers)
      count = 0
    end
    for _ = 1, count do
      local delay, binding = longest_wait(rules, states)
      local n = #answers + 1
      if delay > patience then -- nothing changes, so equal requests hear the same
        answers[n] = answer(false, delay, binding, rules, states)
        break
      end
      local before = delay > 0 and undoable and ',' .. positions(states) or ''
      book(rules, states, delay)
      answers[n] = answer(true, delay, binding, rules, states) .. ',' .. positions(states) .. before
    end
  end
  store_changed(rules, states)
  return length > 0 and in_packed_form() or table.concat(answers, ';')
end

local function peek(rules, states)
  read_costs(rules)
  local delay, binding = longest_wait(rules, states)
  return answer(delay <= 0, delay, binding, rules, states)
end

-- Where a position is given it must still be the last: then nothing was booked there after.
local function give_back(rules, states)
  read_costs(rules)
  local marks, changed = {}, 0
  for i = 1, #rules do
    marks[i] = following()
  end
  for i, rule in ipairs(rules) do
    local state, before = states[i], following()
    if state and rule.cost > 0 and (marks[i] == '' or position(state) == marks[i]) then
      if before then
        store(rule, state_at(before))
      else
        store(rule, refund(rule, state, now, rule.cost))
      end
      changed = changed + 1
    end
  end
  return changed
end

if operation == 'reset' then
  return redis.call('DEL', unpack(KEYS))
elseif operation == 'acquire' or operation == 'acquire_packed' then
  return acquire(read_rules(#KEYS), read_states(#KEYS))
elseif operation == 'peek' then
  return peek(read_rules(#KEYS), read_states(#KEYS))
elseif operation == 'refund' then
  return give_back(read_rules(#KEYS), read_states(#KEYS))
end
refuse('operation is unknown: ' .. tostring(operation))
