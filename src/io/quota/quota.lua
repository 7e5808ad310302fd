-- The shared quota of chatlift, version 2: one call of one process about one API. docs/QUOTA.md is its documentation.
--
-- A limit of N requests a second is N slots. Each slot is used at most once a second, by the process that holds it. Processes hold their
-- slots under a lease, which each call renews. Where the service lets less than the limit through, fewer slots are given out: as many as
-- the pace that gets through. All times are microseconds of this server's clock.
--
-- KEYS[1]  the hash of the API
-- ARGV     1 version   2 N   3 id of the process   4 number of this call, higher than in any earlier one of this process
--          5 the entry that the last answer named, 0 before   6 slots that the process keeps   7 slots that it wants in all
--          8 a slot is of use if it is free within so many milliseconds
--          9 tenths of requests a second that have left the process lately   10 tenths of those a second that the service refused as too
--          fast   11 how many milliseconds ago the newest refused one left, if one was refused since the last call; else -1
--          12 percent of what gets through that are left to others
--          13… for each slot that the process gives back: in how many milliseconds others may use it
-- Returns  ok, the entry of the process, slots kept, slots granted, fair share, lease in ms, processes, milliseconds until the quota
--          opens, milliseconds from one use of a slot to the next, tenths a second that got through at the last refusal, tenths a second
--          that may leave now (both 0: all of the limit); then for each granted slot its wait in milliseconds
--      or  stale
--      or  version or rate, the stored value, the given one
local LEASE, SECOND, CLOSED = 500000, 1000000, 1500000
-- After so long a silence of all that hold slots, time may not have passed: this clock may have been set forward.
local SILENCE = 1000000
-- What is added to a second, since requests of two machines travel differently long.
local MARGIN = 8000
-- How long the hash outlives its last call, and how long a turn lasts where there are more processes than slots.
local KEPT_MS, TURN = 3600000, 4000000

local key, version, rate, id = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local number, entry, kept, want = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local within, left, refused = tonumber(ARGV[8]) * 1000, tonumber(ARGV[9]) / 10, tonumber(ARGV[10]) / 10
local refused_ago, headroom, WAITS = tonumber(ARGV[11]) * 1000, tonumber(ARGV[12]) / 100, 13
local function text(value) return string.format('%.0f', value) end
local function ms(micros) return math.max(0, math.ceil(micros / 1000)) end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- Another server, or one that was started or promoted anew, may know less than was granted.
local server = redis.call('INFO', 'server'):match('run_id:(%w+)') .. redis.call('INFO', 'replication'):match('master_replid:(%w+)')

local stored, flat = {}, redis.call('HGETALL', key)
for at = 1, #flat, 2 do stored[flat[at]] = flat[at + 1] end

local free, runs, others_hold = {}, {}, false
local function begin(opens_at, pace)
  runs = {}
  stored = { opens_at = text(opens_at), pace = pace }
  for slot = 1, rate do free[slot] = opens_at end
end
if stored.server ~= server or now < tonumber(stored.seen_at) then
  begin(now + CLOSED)
elseif stored.version ~= version or tonumber(stored.rate) ~= rate then
  if now < tonumber(stored.busy_until) then
    if stored.version ~= version then return { 'version', stored.version, version } end
    return { 'rate', stored.rate, text(rate) }
  end
  begin(now)
else
  for at in stored.free:gmatch('%d+') do free[#free + 1] = tonumber(at) end
  for field, value in pairs(stored) do
    if field:sub(1, 4) == 'run:' then
      local word = value:gmatch('%S+')
      local function figure() return tonumber(word()) end
      runs[field:sub(5)] = { count = figure(), ends_at = figure(), want = figure(), number = figure(), since = word(), left = figure(),
        refused = figure(), headroom = figure() }
    end
  end
end

for other, run in pairs(runs) do
  others_hold = others_hold or (other ~= id and run.count > 0)
end
if others_hold and now - tonumber(stored.seen_at) > SILENCE then
  free = {}
  begin(now + CLOSED, stored.pace)
end

local own = runs[id] or { count = 0, number = -1, since = text(now) }
if number <= own.number then return { 'stale' } end

-- The first write is one that a server out of memory refuses, before anything has changed. Others that it allows (DEL, HDEL) would let
-- all that follow pass.
redis.call('HSET', key, 'seen_at', text(now))
if not stored.seen_at then redis.call('DEL', key) end

-- What a process holds whose lease is over may have been used until then.
for other, run in pairs(runs) do
  if other ~= id and run.ends_at < now then
    for _ = 1, run.count do free[#free + 1] = run.ends_at + SECOND + MARGIN end
    runs[other] = nil
    redis.call('HDEL', key, 'run:' .. other)
  end
end

-- What the process does not keep is free: as it says, or, where it says nothing, as if it had been used just now.
-- What it has from before its entry began is forgotten here, and may be another's.
local known = entry == own.since
kept = known and math.min(kept, own.count) or 0
local waits = {}
for at = WAITS, known and #ARGV or 0 do waits[#waits + 1] = tonumber(ARGV[at]) * 1000 end
table.sort(waits, function(one, other) return one > other end)
local given_back = own.count - kept
for slot = 1, given_back do
  local silent = slot > #waits
  free[#free + 1] = now + (silent and SECOND + MARGIN or math.min(waits[slot], CLOSED))
end

want = math.min(want, rate)
runs[id] = { count = kept, want = want, left = left, refused = refused, headroom = headroom }

-- The pace that the service lets through to all, as a single process finds it for itself (src/io/gate/pace.rs, which gives the reasons):
-- after a refusal it falls to what got through, is held, and then rises, slowly at first and then ever faster.
local FALL, FLOOR, NEAR, FOLLOWS, FREE_AFTER = 0.96, 1, 1.15, 3000000, 10000000
local STEP, GROWTH, GROWTH_EACH = 100000, { 0, 0.03, 0.1, 0.2, 0.3 }, 3000000
local GAIN, GAIN_MAX, GAIN_LEAST = 0.01, 0.04, 0.1
local LONE, USED, COARSE = 120, 0.8, 20
-- After so long a refusal is a new one: a second, and the time until all have heard of the last.
local EVENT = 1200000
-- Processes spread the uses of their slots over a little more than a second.
local SPREAD = 1.009
local OTHERWISE, TO_MEASURED, TO_KNOWN = 0, 1, 2
-- The fields as they are kept, with what they are before the first refusal.
local FIELDS = { 'is_free', 'per_s', 'ceiling', 'held', 'hold_until', 'raised_at', 'is_confirmed', 'fall', 'above', 'slack', 'event_until',
  'below_at' }
local pace = { is_free = 1, per_s = rate, ceiling = 0, held = rate, hold_until = 0, raised_at = 0, is_confirmed = 0, fall = OTHERWISE,
  above = 0, slack = -1, event_until = 0, below_at = 0 }
local fields = 0
for figure in (stored.pace or ''):gmatch('%S+') do
  fields = fields + 1
  pace[FIELDS[fields]] = tonumber(figure)
end

local function rise()
  if pace.is_free == 1 or now < pace.hold_until then return end
  if pace.raised_at == pace.hold_until then
    pace.above = 0
    if pace.fall == TO_MEASURED then pace.slack = -1 end
  end
  while pace.raised_at + STEP <= now and pace.per_s < rate do
    local growth = GROWTH[math.min(#GROWTH, 1 + math.floor((pace.raised_at - pace.hold_until) / GROWTH_EACH))]
    local gain = math.min(GAIN * rate / pace.per_s, math.max(GAIN_MAX, GAIN_LEAST / pace.per_s))
    pace.above = pace.above + math.max(0, pace.per_s - pace.ceiling) * STEP / SECOND
    pace.per_s = math.min(rate, pace.per_s * (1 + (growth + gain) * STEP / SECOND))
    pace.raised_at = pace.raised_at + STEP
    pace.below_at = pace.raised_at
  end
  if pace.per_s >= rate and now >= pace.below_at + FREE_AFTER then pace.is_free = 1 end
end

-- What got through to all, by what they say of the time before their last calls.
local function through(sent, lost, keeps, is_raise)
  local per_s = math.max(sent - lost, FLOOR / 2)
  if sent < USED * pace.per_s then per_s = math.max(per_s, pace.per_s / 2) end
  if is_raise then
    per_s = math.max(per_s, pace.held / keeps)
    if pace.per_s < COARSE and pace.raised_at - pace.hold_until < 2 * GROWTH_EACH then per_s = math.max(per_s, 0.98 * pace.per_s) end
  end
  return math.min(per_s, pace.per_s)
end

local function falls(to_per_s, keeps, is_raise)
  local follows = now < pace.event_until + FOLLOWS
  local is_near = to_per_s < NEAR * pace.ceiling and to_per_s * NEAR > pace.ceiling
  local confirms = (is_raise and pace.per_s < NEAR * pace.ceiling) or (pace.is_confirmed == 1 and follows and is_near)
  pace.is_confirmed = confirms and pace.ceiling > 0 and 1 or 0
  pace.ceiling = to_per_s
  local kept_part = is_raise and keeps or math.min(FALL, keeps + 0.01)
  pace.per_s = math.max(to_per_s * kept_part, math.min(FLOOR, rate))
  local hold = pace.is_confirmed == 1 and 8.5 + math.min(40 / to_per_s, 12) or 4 + math.min(20 / to_per_s, 6)
  pace.is_free, pace.held, pace.event_until = 0, pace.per_s, now + EVENT
  pace.hold_until = now + math.floor(hold * SECOND)
  pace.raised_at = pace.hold_until
end

local function slow_down(left_at)
  if left_at < pace.event_until then return end
  local sent, lost, most_headroom = 0, 0, 0
  for _, run in pairs(runs) do
    sent, lost, most_headroom = sent + run.left, lost + run.refused, math.max(most_headroom, run.headroom)
  end
  local is_held, is_raise = pace.is_free == 0 and now < pace.hold_until, pace.is_free == 0 and now >= pace.hold_until
  -- The network's jitter causes a few while a pace is held.
  if is_held and lost <= math.floor(pace.per_s / LONE) then return end
  local keeps = 1 - most_headroom
  local is_full_bucket = is_raise and pace.slack >= 0 and pace.above <= pace.slack * 1.3 + 2 and pace.per_s < 2 * pace.ceiling
  local to_per_s = is_full_bucket and math.min(pace.ceiling * 1.005, pace.per_s) or through(sent, lost, keeps, is_raise)
  if is_held and pace.fall ~= OTHERWISE and now < pace.event_until + FOLLOWS then pace.slack = pace.above end
  pace.fall = is_raise and (is_full_bucket and TO_KNOWN or TO_MEASURED) or OTHERWISE
  falls(to_per_s, keeps, is_raise)
end

rise()
if refused_ago >= 0 then slow_down(now - refused_ago) end
local figures = {}
for at = 1, #FIELDS do figures[at] = string.format('%.17g', pace[FIELDS[at]]) end

-- The slots that are given out in all, and from one use of each to the next.
local open, slot_ms = rate, (SECOND + MARGIN) / 1000
if pace.per_s < rate then
  open = math.min(rate, math.ceil(pace.per_s * SPREAD))
  slot_ms = math.max(slot_ms, math.floor(1000 * open / pace.per_s) - 1)
end

-- The fair share: nobody gets more than it wants, and what some leave is shared by the others.
local wanting = {}
for other, run in pairs(runs) do
  if run.want > 0 then wanting[#wanting + 1] = { id = other, want = run.want } end
end
table.sort(wanting, function(one, other)
  if one.want ~= other.want then return one.want < other.want end
  return one.id < other.id
end)
local first = 0
if #wanting > open then first = math.floor(now / TURN) % #wanting end
local rest_of_all, share = open, 0
for place = 1, #wanting do
  local run = wanting[(place - 1 + first) % #wanting + 1]
  local part = math.min(run.want, math.floor(rest_of_all / (#wanting - place + 1)))
  rest_of_all = rest_of_all - part
  if run.id == id then share = part end
end

-- What others still have of more than their share is not given out twice.
local most = open
for other, run in pairs(runs) do
  if other ~= id then most = most - run.count end
end
most = math.min(share, most) - kept

table.sort(free)
local last_free = free[#free] or now
if open < rate then
  -- Those of the last second change hands first: where few slots are given out, others would let more through than that.
  local resting, rested = {}, {}
  for slot = 1, #free do
    local place = free[slot] > now and resting or rested
    place[#place + 1] = free[slot]
  end
  for slot = 1, #rested do resting[#resting + 1] = rested[slot] end
  free = resting
end
local granted, rest = {}, {}
for slot = 1, #free do
  if #granted < most and free[slot] - now <= within then
    granted[#granted + 1] = free[slot]
  else
    rest[#rest + 1] = text(free[slot])
  end
end

local holds, processes, busy_until = kept + #granted, 0, last_free
if holds > 0 or want > 0 then
  redis.call('HSET', key, 'run:' .. id, string.format('%d %.0f %d %.0f %s %.1f %.1f %.2f', holds, now + LEASE, want, number, own.since,
    left, refused, headroom))
  runs[id].ends_at = now + LEASE
else
  redis.call('HDEL', key, 'run:' .. id)
  runs[id] = nil
end
for _, run in pairs(runs) do
  processes = processes + 1
  busy_until = math.max(busy_until, run.ends_at + SECOND + MARGIN)
end
redis.call('HSET', key, 'version', version, 'rate', text(rate), 'server', server, 'seen_at', text(now), 'opens_at', stored.opens_at,
  'busy_until', text(busy_until), 'free', table.concat(rest, ' '), 'pace', table.concat(figures, ' '))
redis.call('PEXPIRE', key, KEPT_MS)

local function tenths(per_s) return pace.is_free == 1 and 0 or math.max(1, math.floor(per_s * 10 + 0.5)) end
local answer = { 'ok', tonumber(own.since), kept, #granted, share, LEASE / 1000, processes, ms(tonumber(stored.opens_at) - now), slot_ms,
  tenths(pace.ceiling), tenths(pace.per_s) }
for slot = 1, #granted do answer[#answer + 1] = ms(granted[slot] - now) end
return answer
