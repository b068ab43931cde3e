-- What a fleet knows of its circuits: the twin of resilience/machines/fleet_breaker.py, function by function.
--
-- KEYS[1]  a hash: field "version", and the view of each circuit that is not closed, or was not lately
-- KEYS[2]  a sorted set: the ids of these circuits by the version of their view
-- KEYS[n]  a hash for each circuit that something is to be done to:
--            s           its state: state generation moment nominal opens calls failures slow
--            w<process>  the window of a process: calls failures slow until
--            l<probe>    when the lease of a probe ends
-- ARGV     now, process, channel, the version up to which the caller knows all views, a random draw; then for each
--          circuit: id, rule, number of requests, requests
--            rule        failure_rate slow_rate minimum_calls open_for open_max open_growth jitter probes probe_lease
--                        needed lifetime; a rate that does not count is "-"; needed is in how many processes a rate
--                        must be reached: 0 a majority, -1 never
--            request     w since calls failures slow | a probe | v probe failure slow | r probe | t | i | z
--
-- Returns now, the version, an answer for each request, and the views that are newer than the caller's version.
-- A view is: id state generation version opens until free probes. The channel gets each as it changes: now, view.

local CLOSED, OPEN, HALF_OPEN, ISOLATED = 0, 1, 2, 3
local LINGER, FORGET = 60000000, 86400000000

local views, by_version = KEYS[1], KEYS[2]
local now = time(ARGV[1])
local process, channel = ARGV[2], ARGV[3]
local seen, draw = number('version', ARGV[4], 0), number('draw', ARGV[5], 0)
local version = tonumber(redis.call('HGET', views, 'version') or '0')

-- The circuit in hand, and the rule by which its caller wants it judged.
local key, id, rule, c

local function words(line)
  local found = {}
  for word in string.gmatch(line, '%S+') do
    found[#found + 1] = word
  end
  return found
end

local function next_version()
  version = math.max(version + 1, now)
  redis.call('HSET', views, 'version', text(version))
  return version
end

-- Everything is read and checked before anything is written.

local function parse_rule(line)
  local word = words(line)
  return {
    failure_rate = word[1] ~= '-' and positive('failure_rate', word[1]) or nil,
    slow_rate = word[2] ~= '-' and positive('slow_rate', word[2]) or nil,
    minimum_calls = number('minimum_calls', word[3], 1),
    open_for = positive('open_for', word[4]),
    open_max = positive('open_max', word[5]),
    open_growth = number('open_growth', word[6], 1),
    jitter = number('jitter', word[7], 0),
    probes = number('probes', word[8], 1),
    probe_lease = positive('probe_lease', word[9]),
    needed = number('needed', word[10], -1),
    lifetime = positive('lifetime', word[11]),
  }
end

-- How many numbers a request has behind its text, and how much text.
local NUMBERS = { w = { 0, 4 }, a = { 1, 0 }, v = { 1, 2 }, r = { 1, 0 }, t = { 0, 0 }, i = { 0, 0 }, z = { 0, 0 } }

local function parse_request(line)
  local word = words(line)
  local shape = NUMBERS[word[1]] or refuse('request is unknown: ' .. line)
  for index = 2, 1 + shape[1] do
    if not word[index] then
      refuse('request needs the id of a probe: ' .. line)
    end
  end
  for index = 2 + shape[1], 1 + shape[1] + shape[2] do
    word[index] = number('request ' .. word[1], word[index], 0)
  end
  return word
end

local function exceeded(calls, failures, slow)
  return (rule.failure_rate and failures / calls >= rule.failure_rate)
    or (rule.slow_rate and slow / calls >= rule.slow_rate)
end

-- Reading and writing the record.

local function load()
  local stored = redis.call('HGET', key, 's')
  local word = words(stored or '0 0 0 0 0 0 0 0')
  c = { known = stored and true, leases = {}, count = 0 }
  for index, name in ipairs({ 'state', 'generation', 'moment', 'nominal', 'opens', 'calls', 'failures', 'slow' }) do
    c[name] = number('state of ' .. key, word[index], 0)
  end
  if c.state == HALF_OPEN then
    local flat = redis.call('HGETALL', key)
    for index = 1, #flat, 2 do
      if string.sub(flat[index], 1, 1) == 'l' then
        c.leases[string.sub(flat[index], 2)] = tonumber(flat[index + 1])
        c.count = c.count + 1
      end
    end
  end
end

local function save()
  local fields = { c.state, c.generation, c.moment, c.nominal, c.opens, c.calls, c.failures, c.slow }
  for index, value in ipairs(fields) do
    fields[index] = text(value)
  end
  redis.call('HSET', key, 's', table.concat(fields, ' '))
  if c.state == ISOLATED then
    redis.call('PERSIST', key)
  elseif c.state == CLOSED then
    redis.call('PEXPIRE', key, keep(now + rule.lifetime, now))
  else
    redis.call('PEXPIRE', key, keep(math.max(now, c.moment) + FORGET, now))
  end
end

local function free()
  return rule.probes - c.calls - c.count
end

local function next_end()
  local first = math.huge
  for _, lease_end in pairs(c.leases) do
    first = math.min(first, lease_end)
  end
  return c.count > 0 and first or 0
end

local function tell(number_of_change)
  local half_open = c.state == HALF_OPEN
  local line = table.concat({
    id,
    text(c.state),
    text(c.generation),
    text(number_of_change),
    text(c.opens),
    text(half_open and next_end() or c.moment),
    text(half_open and free() or 0),
    text(c.count),
  }, ' ')
  redis.call('HSET', views, id, line)
  redis.call('ZADD', by_version, text(number_of_change), id)
  redis.call('PUBLISH', channel, text(now) .. ' ' .. line)
  save()
end

local function announce()
  tell(next_version())
end

-- Changes of state.

local function enter(state, moment)
  c.state, c.moment = state, moment
  if state == CLOSED or state == ISOLATED then
    c.nominal, c.opens = 0, 0
  end
  c.calls, c.failures, c.slow = 0, 0, 0
  c.leases, c.count, c.known = {}, 0, true
  redis.call('DEL', key)
  c.generation = next_version()
  tell(c.generation)
end

local function open(at, nominal, opens)
  c.nominal, c.opens = nominal, opens
  enter(OPEN, at + nominal * (1 + rule.jitter * draw))
end

local function half_open()
  if not c.known then
    c.nominal, c.opens = rule.open_for, 1
  end
  enter(HALF_OPEN, now)
end

-- Closed: the votes of the processes.

local function needed(processes)
  if rule.needed == -1 then
    return processes + 1
  end
  return rule.needed == 0 and math.floor(processes / 2) + 1 or rule.needed
end

local function judge_votes()
  local calls, failures, slow, voices, processes = 0, 0, 0, 0, 0
  local flat = redis.call('HGETALL', key)
  for index = 1, #flat, 2 do
    if string.sub(flat[index], 1, 1) == 'w' then
      local vote = words(flat[index + 1])
      local own, bad, late = tonumber(vote[1]), tonumber(vote[2]), tonumber(vote[3])
      if tonumber(vote[4]) <= now then
        redis.call('HDEL', key, flat[index])
      elseif own > 0 then
        calls, failures, slow = calls + own, failures + bad, slow + late
        processes = processes + 1
        voices = voices + (exceeded(own, bad, late) and 1 or 0)
      end
    end
  end
  if calls >= rule.minimum_calls and voices >= needed(processes) and exceeded(calls, failures, slow) then
    open(now, rule.open_for, 1)
  end
end

-- Half-open: the probes.

local function judge_probes(at)
  local left = rule.probes - c.calls
  if exceeded(rule.probes, c.failures, c.slow) then
    open(at, math.min(rule.open_max, c.nominal * rule.open_growth), c.opens + 1)
  elseif not exceeded(rule.probes, c.failures + left, c.slow + left) then
    enter(CLOSED, now)
  else
    return false
  end
  return true
end

local function drop(probe)
  redis.call('HDEL', key, 'l' .. probe)
  c.leases[probe] = nil
  c.count = c.count - 1
end

local function count(probe, failure, slow)
  drop(probe)
  c.calls, c.failures, c.slow = c.calls + 1, c.failures + failure, c.slow + slow
end

-- No open time and no lease lasts longer than it was to, also if the clock has stepped back.
local function limit_open_time()
  local latest = now + c.nominal * (1 + rule.jitter)
  if c.moment > latest then
    c.moment = latest
    announce()
  end
end

local function limit_leases()
  local latest, late = now + rule.probe_lease, false
  for probe, lease_end in pairs(c.leases) do
    if lease_end > latest then
      c.leases[probe], late = latest, true
      redis.call('HSET', key, 'l' .. probe, text(latest))
    end
  end
  return late
end

local function settle()
  if c.state == OPEN then
    limit_open_time()
  end
  if c.state ~= HALF_OPEN then
    return
  end
  local stepped_back = limit_leases()
  local ended = {}
  for probe, lease_end in pairs(c.leases) do
    if lease_end <= now then
      ended[#ended + 1] = { lease_end, probe }
    end
  end
  table.sort(ended, function(one, other)
    return one[1] < other[1] or (one[1] == other[1] and one[2] < other[2])
  end)
  for _, each in ipairs(ended) do
    count(each[2], 1, 1)
    if judge_probes(each[1]) then
      return
    end
  end
  if not judge_probes(now) and (#ended > 0 or stepped_back) then
    announce()
  end
end

-- Requests.

local request = {}

-- w since calls failures slow
function request.w(word)
  local since, calls, failures, slow = word[2], word[3], word[4], word[5]
  if c.state ~= CLOSED or c.generation > since then
    return text(c.generation)
  end
  local expires = now + rule.lifetime
  redis.call('HSET', key, 'w' .. process, table.concat({ text(calls), text(failures), text(slow), text(expires) }, ' '))
  redis.call('PEXPIRE', key, keep(expires, now))
  if failures > 0 or slow > 0 then
    judge_votes()
  end
  return ''
end

-- a probe
function request.a(word)
  if c.state == OPEN and now < c.moment then
    return 'wait ' .. text(c.moment - now)
  end
  if c.state == OPEN or not c.known then
    half_open()
  end
  if c.state == ISOLATED then
    return 'isolated 0'
  elseif c.state == CLOSED then
    return 'closed 0'
  end
  if not c.leases[word[2]] then
    if free() <= 0 then
      return 'wait ' .. text(math.min(rule.open_for, next_end() - now))
    end
    c.leases[word[2]] = now + rule.probe_lease
    c.count = c.count + 1
    redis.call('HSET', key, 'l' .. word[2], text(c.leases[word[2]]))
    announce()
  end
  return 'probe ' .. text(c.generation)
end

-- v probe failure slow
function request.v(word)
  if c.leases[word[2]] then
    count(word[2], word[3], word[4])
    if not judge_probes(now) then
      announce()
    end
  end
  return ''
end

-- r probe
function request.r(word)
  if c.leases[word[2]] then
    drop(word[2])
    announce()
  end
  return ''
end

-- t: to look is enough
function request.t()
  return ''
end

-- i
function request.i()
  if c.state ~= ISOLATED then
    enter(ISOLATED, now)
  end
  return ''
end

-- z
function request.z()
  enter(CLOSED, now)
  return ''
end

-- Views that the caller does not know. Who knows none yet also clears away what nobody needs any more: circuits that
-- closed a while ago, and those that were not closed and have had no call for a day.
local function obsolete(line)
  local word = words(line)
  local state, changed = tonumber(word[2]), tonumber(word[4])
  return state ~= ISOLATED and changed + (state == CLOSED and LINGER or FORGET) < now
end

local function news(reply)
  if version <= seen then
    return
  end
  for _, each in ipairs(redis.call('ZRANGEBYSCORE', by_version, '(' .. text(seen), '+inf')) do
    local line = redis.call('HGET', views, each)
    if line and not (seen == 0 and obsolete(line)) then
      reply[#reply + 1] = line
    else
      redis.call('HDEL', views, each)
      redis.call('ZREM', by_version, each)
    end
  end
end

local jobs, at = {}, 6
for place = 3, #KEYS do
  local job = { key = KEYS[place], id = ARGV[at], rule = parse_rule(ARGV[at + 1] or '') }
  local requests = number('requests', ARGV[at + 2], 0)
  for offset = 1, requests do
    job[offset] = parse_request(ARGV[at + 2 + offset] or '')
  end
  jobs[#jobs + 1], at = job, at + 3 + requests
end

local answers = {}
for _, job in ipairs(jobs) do
  key, id, rule = job.key, job.id, job.rule
  load()
  for _, word in ipairs(job) do
    if word[1] ~= 'i' and word[1] ~= 'z' then
      settle()
    end
    answers[#answers + 1] = request[word[1]](word)
  end
end

local reply = { text(now), text(version) }
for _, answer in ipairs(answers) do
  reply[#reply + 1] = answer
end
news(reply)
return reply
