-- Check the limits, open the job, enqueue its messages: all or nothing.
-- KEYS job, open, ids, outstanding, totals, jobs, drain, sequence, collections, queue
-- ARGV mode, limit_texts, limit_bytes, sizes (JSON), job_id, collection, model, on_long, ids (JSON),
--   due (Unix seconds, 0: now), envelope...
-- mode: limited | forced (counted, never refused) | again (a retry of a message of an accepted job)
local job, open, ids, outstanding, totals, jobs, drain, sequence, collections, queue = unpack(KEYS)
local mode, sizes = ARGV[1], cjson.decode(ARGV[4])

local function enqueue()
  for i = 11, #ARGV do redis.call('LPUSH', queue, ARGV[i]) end
end

if redis.call('EXISTS', job) == 1 then
  if mode == 'again' and redis.call('EXISTS', open) == 1 then enqueue() end
  return {'exists', redis.call('HGET', job, 'sequence')}
end
local made = redis.call('HGET', collections, ARGV[6])
if made and mode == 'limited' then
  local by = cjson.decode(made)['model']
  if by ~= ARGV[7] then return {'mismatch', by} end
end
local bytes = 0
for _, size in ipairs(sizes) do bytes = bytes + size end
local held = redis.call('HMGET', outstanding, 'texts', 'bytes')
local texts_after = (tonumber(held[1]) or 0) + #sizes
local bytes_after = (tonumber(held[2]) or 0) + bytes
if mode == 'limited' and (texts_after > tonumber(ARGV[2]) or bytes_after > tonumber(ARGV[3])) then
  redis.call('HINCRBY', totals, 'refused', #sizes)
  local rate = redis.call('HMGET', drain, 'rate', 'at', 'since')
  return {'full', texts_after, bytes_after, tostring(now()), rate[1], rate[2], rate[3]}
end

local at = now()
-- Microseconds since 1970, or one after the last: a ledger that begins anew still counts on.
local last = math.max(tonumber(redis.call('GET', sequence)) or 0, math.floor(at * 1000000))
local first = string.format('%.0f', last + 1)
redis.call('SET', sequence, string.format('%.0f', last + #sizes))
for i, size in ipairs(sizes) do redis.call('HSET', open, i - 1, size) end
redis.call('SET', ids, ARGV[9])
redis.call('HSET', job, 'state', 'open', 'collection', ARGV[6], 'model', ARGV[7], 'on_long', ARGV[8],
  'accepted', #sizes, 'sequence', first, 'created_at', at, 'queue', queue)
redis.call('HINCRBY', outstanding, 'texts', #sizes)
redis.call('HINCRBY', outstanding, 'bytes', bytes)
redis.call('HINCRBY', totals, 'accepted', #sizes)
-- a job with a countdown is not late before its time
redis.call('ZADD', jobs, math.max(at, tonumber(ARGV[10])), ARGV[5])
enqueue()
return {'accepted', first}
