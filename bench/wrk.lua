-- Sends the requests of a plan (BENCH_PLAN, written by plan.ts) and checks every answer.

local plan = dofile(os.getenv('BENCH_PLAN'))
local asks, many = plan.requests, #plan.requests
local following = plan.follow ~= ''
local pattern = '"' .. plan.follow .. '":"([^"]+)"'
-- The index at which the previous round ended.
local at = tonumber(os.getenv('BENCH_FROM'))
local threads = {}

-- Globals, because done() runs in a separate Lua state and can read only these.
wrong = 0
sample = ''
took = 0

-- Values for `{next}`, each of which is sent once. Every answer of a plan with `follow` adds one.
queue = {}
local first, last = 1, 0
local function push(next)
  last = last + 1
  queue[last] = next
end
local function pop()
  local next = queue[first]
  queue[first] = nil
  first = first + 1
  return next
end
if following then
  for _, ask in ipairs(asks) do push(ask.next) end
end

local function text(ask, body)
  if body == '' then return ask.head end
  return ask.head .. 'Content-Length: ' .. #body .. '\r\n\r\n' .. body
end

local made = {}
if not following then
  for i, ask in ipairs(asks) do made[i] = text(ask, ask.body) end
end

function setup(thread)
  table.insert(threads, thread)
end

local ffi = require('ffi')
ffi.cdef('typedef struct { long s; long ns; } bench_time; int clock_gettime(int, bench_time *);')
local MONOTONIC = 1
local function now()
  local time = ffi.new('bench_time')
  ffi.C.clock_gettime(MONOTONIC, time)
  return tonumber(time.s) + tonumber(time.ns) / 1e9
end

-- Ends a plan with `once` when its requests are used up, and stores the elapsed time. Requests still in flight do not count.
local began
local function stop()
  if took > 0 then return end
  took = now() - began
  wrk.thread:stop()
end

function request()
  if plan.once then
    began = began or now()
    if at == many then
      stop()
      return made[many]
    end
  end
  at = at % many + 1
  if not following then return made[at] end
  local next = pop()
  if next == nil then
    wrong = wrong + 1
    sample = 'nothing is left to follow'
    return text(asks[at], asks[at].body)
  end
  return text(asks[at], (asks[at].body:gsub('{next}', function() return next end)))
end

local function right(status, headers, body)
  if status ~= plan.status then return false end
  if plan.contains ~= '' and not body:find(plan.contains, 1, true) then return false end
  if plan.lacks ~= '' and body:find(plan.lacks, 1, true) then return false end
  return plan.header == '' or headers[plan.header] ~= nil
end

function response(status, headers, body)
  if not right(status, headers, body) then
    wrong = wrong + 1
    if sample == '' then sample = 'status ' .. status .. ', ' .. #body .. ' bytes' end
  elseif following then
    push(body:match(pattern))
  end
end

function done(summary, latency)
  local mistakes, seen, seconds = 0, '', summary.duration / 1e6
  for _, thread in ipairs(threads) do
    mistakes = mistakes + thread:get('wrong')
    if thread:get('took') > 0 then seconds = thread:get('took') end
    if seen == '' then seen = thread:get('sample') end
  end
  for _, thread in ipairs(threads) do
    for _, next in pairs(thread:get('queue')) do io.write('NEXT ', next, '\n') end
  end
  local e = summary.errors
  io.write(string.format(
    'BENCH {"requests":%d,"seconds":%f,"p50":%f,"p99":%f,"wrong":%d,"sample":"%s","lost":%d}\n',
    summary.requests, seconds, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    mistakes, seen, e.connect + e.read + e.write + e.timeout))
end
