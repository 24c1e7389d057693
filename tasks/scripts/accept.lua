-- Check the limits, open jobs, enqueue their messages: each job all or nothing, and each with its own answer.
-- KEYS outstanding, totals, jobs, drain, sequence, collections, dead, dead_bytes,
--   then for each job: its key, its queue
-- ARGV mode, limit_texts, limit_bytes, model, then for each job: what it is (JSON: id, collection,
--   on_long, due (Unix seconds, 0: now), sizes, contents (digests), delete, messages), ids (JSON), envelope...
-- A job of dead letters also says which (letters), and the acceptance numbers that its documents had
--   (numbers: JSON in a string, since Lua would round them). The letters go with its acceptance; if one has gone, it is not accepted.
-- A job may have a mark (key, before, after, ttl_s): it is accepted only where `before` stands there.
-- mode: limited | forced (counted, never refused) | again (a retry of a message of an accepted job)
-- The answers are one JSON array: a client reads it faster than nested replies.
local outstanding, totals, jobs, drain, sequence, collections, dead, dead_bytes = unpack(KEYS, 1, 8)
local mode, limit_texts, limit_bytes, model = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local at = now()
local held = redis.call('HMGET', outstanding, 'texts', 'bytes')
local texts_before, bytes_before = tonumber(held[1]) or 0, tonumber(held[2]) or 0
-- Microseconds since 1970, or one after the last: a ledger that begins anew still counts on.
local before = math.max(tonumber(redis.call('GET', sequence)) or 0, math.floor(at * 1000000))
local texts, bytes, refused, refusals = 0, 0, 0, 0
local makers = {}

-- A command takes some 8,000 arguments at most.
local function call_in_parts(command, key, values)
  for from = 1, #values, 1000 do
    redis.call(command, key, unpack(values, from, math.min(from + 999, #values)))
  end
end

local function maker(collection)
  if makers[collection] == nil then
    local made = redis.call('HGET', collections, collection)
    makers[collection] = made and cjson.decode(made)['model'] or false
  end
  return makers[collection]
end

local function accept(key, queue, job, ids, envelopes)
  local open, count = key .. ':open', #job.sizes
  if redis.call('EXISTS', key) == 1 then
    if mode == 'again' and redis.call('EXISTS', open) == 1 then call_in_parts('LPUSH', queue, envelopes) end
    return {'exists', redis.call('HGET', key, 'sequence')}
  end
  local mark = job.mark
  if mark then
    local found = redis.call('GET', mark.key) or ''
    if found ~= mark.before then return {'marked', found} end
  end
  for _, id in ipairs(job.letters or {}) do
    if #redis.call('XRANGE', dead, id, id) == 0 then return {'gone', id} end
  end
  local made = mode == 'limited' and not job.delete and maker(job.collection)
  if made and made ~= model then return {'mismatch', made} end
  local size_of_all, fields = 0, {}
  for i, size in ipairs(job.sizes) do
    size_of_all = size_of_all + size
    fields[2 * i - 1], fields[2 * i] = i - 1, size
  end
  local texts_after, bytes_after = texts_before + texts + count, bytes_before + bytes + size_of_all
  if mode == 'limited' and (texts_after > limit_texts or bytes_after > limit_bytes) then
    refused, refusals = refused + count, refusals + 1
    local rate = redis.call('HMGET', drain, 'rate', 'at', 'since')
    return {'full', texts_after, bytes_after, at, rate[1], rate[2], rate[3]}
  end
  local documents = cjson.decode(ids)
  -- First what can fail: a full Redis refuses the first write only, and this key may be another's.
  call_in_parts('LPUSH', queue, envelopes)
  local first = string.format('%.0f', before + texts + 1)
  call_in_parts('HSET', open, fields)
  redis.call('SET', key .. ':ids', ids)
  redis.call('HSET', key, 'state', 'open', 'collection', job.collection, 'model', model, 'on_long', job.on_long,
    'accepted', count, 'sequence', first, 'created_at', at, 'queue', queue, 'counted', 1)
  if mark then redis.call('SET', mark.key, mark.after, 'EX', mark.ttl_s) end
  if job.delete then redis.call('HSET', key, 'delete', 1) end
  for i, id in ipairs(documents) do add_pending(field_of(job.collection, id), job.contents[i] or '*') end
  if job.letters then
    redis.call('HSET', key, 'numbers', job.numbers)
    discard(dead, dead_bytes, job.letters)
  end
  -- a job with a countdown is not late before its time
  redis.call('ZADD', jobs, math.max(at, job.due), job.id)
  texts, bytes = texts + count, bytes + size_of_all
  return {'accepted', first}
end

local answers, next_argument = {}, 5
for i = 9, #KEYS, 2 do
  local job = cjson.decode(ARGV[next_argument])
  local envelopes = {}
  for j = 1, job.messages do envelopes[j] = ARGV[next_argument + 1 + j] end
  local fine, answer = pcall(accept, KEYS[i], KEYS[i + 1], job, ARGV[next_argument + 1], envelopes)
  if not fine then answer = {'error', type(answer) == 'table' and answer.err or tostring(answer)} end
  answers[#answers + 1] = answer
  next_argument = next_argument + 2 + job.messages
end
if texts > 0 then
  redis.call('SET', sequence, string.format('%.0f', before + texts))
  redis.call('HINCRBY', outstanding, 'texts', texts)
  redis.call('HINCRBY', outstanding, 'bytes', bytes)
  if mode == 'limited' then redis.call('HSET', outstanding, 'limit', limit_texts) end
  redis.call('HINCRBY', totals, 'accepted', texts)
end
-- A full Redis may refuse this; the answers stand.
if refused > 0 then
  redis.pcall('HINCRBY', totals, 'refused', refused)
  redis.pcall('HINCRBY', totals, 'refusals', refusals)
end
return cjson.encode(answers)
