-- Sliding log: the twin of machines/rate_limiter/sliding_log.py.
--
-- The log is a list: first the units in it, then "time units" per entry, oldest first. Only the ends are
-- ever read or written, so a call costs the same however long the log is. A state in hand holds `total`, the
-- `count` of entries and the newest one (`last`, `units`); a new state also says how the list has to change:
-- `dropped` entries at the old end, `popped` at the new end, then `pushed`.

incremental, undoable = true, false

local function prepare(rule)
  rule.capacity = rule.limit
  rule.entries = math.ceil(rule.limit)
end

local function entry(key, index)
  local moment, units = string.match(redis.call('LINDEX', key, index), '^(%S+) (%S+)$')
  return tonumber(moment), tonumber(units)
end

local function load(key)
  local total = redis.call('LINDEX', key, 0)
  if not total then
    return nil
  end
  local last, units = entry(key, -1)
  return {total = tonumber(total), count = redis.call('LLEN', key) - 1, last = last, units = units}
end

local function save(key, state, expiry)
  if state.dropped > 0 then
    redis.call('LTRIM', key, state.dropped + 1, -1)
  else
    redis.call('LPOP', key)
  end
  for _ = 1, state.popped do
    redis.call('RPOP', key)
  end
  for _, pushed in ipairs(state.pushed) do
    redis.call('RPUSH', key, text(pushed[1]) .. ' ' .. text(pushed[2]))
  end
  redis.call('LPUSH', key, text(state.total))
  redis.call('PEXPIRE', key, expiry)
end

local function place(rule, state, moment, cost)
  if state.last > moment then
    moment = state.last
  end
  local total, dropped = state.total, 0
  while dropped < state.count do
    local at, units = entry(rule.key, dropped + 1)
    if at + rule.period > moment and total + cost <= rule.limit then
      break
    end
    if at + rule.period > moment then
      moment = at + rule.period
    end
    total = total - units
    dropped = dropped + 1
  end
  return moment, dropped < state.count and total or 0, dropped
end

local function wait(rule, state, now, cost)
  if not state then
    return 0
  end
  return place(rule, state, now, cost) - now
end

local function take(rule, state, now, cost, delay)
  if not state then
    local moment = now + delay
    return {
      total = cost, count = 1, last = moment, units = cost, dropped = 0, popped = 0, pushed = {{moment, cost}},
    }
  end
  local moment, total, dropped = place(rule, state, now + delay, cost)
  local kept = state.count - dropped
  local popped, units = 0, cost
  if kept > 0 and (state.last == moment or kept >= rule.entries) then
    popped, units = 1, state.units + cost
  end
  return {
    total = total + cost, count = kept - popped + 1, last = moment, units = units,
    dropped = dropped, popped = popped, pushed = {{moment, units}},
  }
end

local function refund(rule, state, now, cost)
  if not state then
    return nil
  end
  local total, kept, pushed = state.total, state.count, {}
  local at, units
  while kept > 0 do
    at, units = entry(rule.key, kept)
    if units > cost then
      break
    end
    total = total - units
    cost = cost - units
    kept = kept - 1
  end
  local popped = state.count - kept
  if kept > 0 then
    total = total - cost
    pushed[1] = {at, units - cost}
  else
    total = 0
  end
  if state.last > now and popped > 0 then
    pushed[#pushed + 1] = {state.last, 0}
  end
  if #pushed == 0 then
    return nil
  end
  return {
    total = total, last = pushed[#pushed][1], dropped = 0,
    popped = kept > 0 and popped + 1 or popped, pushed = pushed,
  }
end

local function remaining(rule, state, now)
  if not state then
    return rule.limit
  end
  if state.last > now then
    return 0
  end
  local total = state.total
  for index = 1, state.count do
    local at, units = entry(rule.key, index)
    if at + rule.period > now then
      return total < rule.limit and rule.limit - total or 0
    end
    total = total - units
  end
  return rule.limit
end

local function charge(rule, state, now, amount)
  local periods = math.ceil(amount / rule.limit) - 1
  local rest = amount - periods * rule.limit
  local log = take(rule, state, now, rest, wait(rule, state, now, rest))
  if periods <= 0 then
    return log
  end
  local moment = log.last + periods * rule.period
  return {
    total = log.total, count = 1, last = moment, units = log.total,
    dropped = state and state.count or 0, popped = 0, pushed = {{moment, log.total}},
  }
end

local function drain(rule, state, now, delay)
  local left = delay <= 0 and remaining(rule, state, now) or 0
  if state and left <= 0 and (delay <= 0 or state.last >= now + delay) then
    return state
  end
  return take(rule, state, now, left, delay)
end

local function observe(rule, state, now, left, reset_after)
  if left <= 0 then
    return drain(rule, state, now, reset_after)
  end
  local surplus = remaining(rule, state, now) - left
  return surplus > 0 and take(rule, state, now, surplus, 0) or state
end

local function fresh_at(rule, state)
  return state.last + rule.period
end

local function place(state)
  return state.last, state.units
end
