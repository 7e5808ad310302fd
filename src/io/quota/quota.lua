-- The shared quota of chatlift, version 1: one call of one process about one API. docs/QUOTA.md is its documentation.
--
-- A limit of N requests a second is N slots. Each slot is used at most once a second, by the process that holds it. Processes hold their
-- slots under a lease, which each call renews. All times are microseconds of this server's clock.
--
-- KEYS[1]  the hash of the API
-- ARGV     1 version   2 N   3 id of the process   4 number of this call, higher than in any earlier one of this process
--          5 the entry that the last answer named, 0 before   6 slots that the process keeps   7 slots that it wants in all
--          8 a slot is of use if it is free within so many milliseconds
--          9 tenths of requests a second that the service lets through in all; 0 if it refuses none
--          10 1 if the service has refused a request as too fast since the last call
--          11… for each slot that the process gives back: in how many milliseconds others may use it
-- Returns  ok, the entry of the process, slots kept, slots granted, fair share, lease in ms, processes, milliseconds until the quota
--          opens, number of refusals, tenths that got through at the last one, tenths that get through now (0: all); then for each
--          granted slot its wait in milliseconds
--      or  stale
--      or  version or rate, the stored value, the given one
local LEASE, SECOND, CLOSED = 500000, 1000000, 1500000
-- After so long a silence of all that hold slots, time may not have passed: this clock may have been set forward.
local SILENCE = 1000000
-- What is added to a second, since requests of two machines travel differently long.
local MARGIN = 8000
-- How long the pace of others is known, how long the hash outlives its last call, and how long a turn lasts where there are more processes
-- than slots.
local PACE_KNOWN, KEPT_MS, TURN = 2000000, 3600000, 4000000

local key, version, rate, id = KEYS[1], ARGV[1], tonumber(ARGV[2]), ARGV[3]
local number, entry, kept, want = tonumber(ARGV[4]), ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local within, pace, refused = tonumber(ARGV[8]) * 1000, tonumber(ARGV[9]), ARGV[10] == '1'
local function text(value) return string.format('%.0f', value) end
local function ms(micros) return math.max(0, math.ceil(micros / 1000)) end

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- Another server, or one that was started or promoted anew, may know less than was granted.
local server = redis.call('INFO', 'server'):match('run_id:(%w+)') .. redis.call('INFO', 'replication'):match('master_replid:(%w+)')

local stored, flat = {}, redis.call('HGETALL', key)
for at = 1, #flat, 2 do stored[flat[at]] = flat[at + 1] end

local free, runs, others_hold = {}, {}, false
local function begin(opens_at)
  runs = {}
  stored = { opens_at = text(opens_at) }
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
      local count, ends_at, wanted, called, since = value:match('(%d+) (%d+) (%d+) (%d+) (%d+)')
      runs[field:sub(5)] = { count = tonumber(count), ends_at = tonumber(ends_at), want = tonumber(wanted), number = tonumber(called),
        since = since }
    end
  end
end

for other, run in pairs(runs) do
  others_hold = others_hold or (other ~= id and run.count > 0)
end
if others_hold and now - tonumber(stored.seen_at) > SILENCE then
  free = {}
  begin(now + CLOSED)
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
for at = 11, known and #ARGV or 0 do waits[#waits + 1] = tonumber(ARGV[at]) * 1000 end
table.sort(waits, function(one, other) return one > other end)
local given_back = own.count - kept
for slot = 1, given_back do
  local silent = slot > #waits
  free[#free + 1] = now + (silent and SECOND + MARGIN or math.min(waits[slot], CLOSED))
end

-- The fair share: nobody gets more than it wants, and what some leave is shared by the others.
want = math.min(want, rate)
runs[id] = { want = want, id = id }
local wanting = {}
for other, run in pairs(runs) do
  if run.want > 0 then wanting[#wanting + 1] = { id = other, want = run.want } end
end
table.sort(wanting, function(one, other)
  if one.want ~= other.want then return one.want < other.want end
  return one.id < other.id
end)
local first = 0
if #wanting > rate then first = math.floor(now / TURN) % #wanting end
local left, share = rate, 0
for place = 1, #wanting do
  local run = wanting[(place - 1 + first) % #wanting + 1]
  local part = math.min(run.want, math.floor(left / (#wanting - place + 1)))
  left = left - part
  if run.id == id then share = part end
end

table.sort(free)
local granted, rest = {}, {}
for slot = 1, #free do
  if #granted < share - kept and free[slot] - now <= within then
    granted[#granted + 1] = free[slot]
  else
    rest[#rest + 1] = text(free[slot])
  end
end

-- The pace that the service lets through in all.
local refusals, found = tonumber(stored.refusals or 0), tonumber(stored.found or 0)
local common, known_until = tonumber(stored.pace or 0), tonumber(stored.pace_until or 0)
if refused then refusals, found = refusals + 1, pace end
if pace > 0 then common, known_until = pace, now + PACE_KNOWN end
if now > known_until then common = 0 end

local holds, processes, busy_until = kept + #granted, 0, free[#free] or now
if holds > 0 or want > 0 then
  redis.call('HSET', key, 'run:' .. id, string.format('%d %.0f %d %.0f %s', holds, now + LEASE, want, number, own.since))
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
  'busy_until', text(busy_until), 'free', table.concat(rest, ' '), 'refusals', text(refusals), 'found', text(found),
  'pace', text(common), 'pace_until', text(known_until))
redis.call('PEXPIRE', key, KEPT_MS)

local answer = { 'ok', tonumber(own.since), kept, #granted, share, LEASE / 1000, processes, ms(tonumber(stored.opens_at) - now), refusals, found, common }
for slot = 1, #granted do answer[#answer + 1] = ms(granted[slot] - now) end
return answer
