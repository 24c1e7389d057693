-- Shared by the ledger's scripts: time, and the one place where documents stop being outstanding.
local function now()
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000
end

-- A full Redis refuses a script's first write if that needs memory, and no later one. What frees
-- memory in the end has to be possible then.
local function allow_writes_when_full(key)
  redis.call('HDEL', key, '')
end

-- An exponentially decaying rate of texts that were worked on, as cancelled ones were not: time constant 10 s, started anew after a minute's rest.
local function record_drain(drain, texts, at)
  local seen = redis.call('HMGET', drain, 'rate', 'at')
  local rate, last = tonumber(seen[1]) or 0, tonumber(seen[2])
  if not last or at - last > 60 then
    rate, last = 0, at
    redis.call('HSET', drain, 'since', at)
  end
  rate = rate * math.exp(-math.max(0, at - last) / 10) + texts / 10
  redis.call('HSET', drain, 'rate', rate, 'at', at)
end

-- Who may still write a document? By collection and id: how many acceptances of it are not settled, or are dead letters, which may be
-- replayed; and a digest of what they carry while that is the same for all, else '*'. No field without any.
local PENDING = 'embedmill:pending'

local function field_of(collection, id)
  return collection .. '\0' .. id
end

local function read_pending(field)
  local count, content = string.match(redis.call('HGET', PENDING, field) or '', '^(%d+) (.*)$')
  return tonumber(count), content
end

local function add_pending(field, content)
  local count, other = read_pending(field)
  if count and other ~= content then content = '*' end
  redis.call('HSET', PENDING, field, (count or 0) + 1 .. ' ' .. content)
end

-- Deletions: by field the acceptance number under which all goes. One is kept while something is pending that it may win over, and for
-- a while after: a writer that was thought lost may still come.
local DELETED, DELETED_UNTIL = 'embedmill:deleted', 'embedmill:deleted:until'
local DELETED_KEPT_S, DELETED_KEPT = 3600, 10000

local function forget_deletions(at)
  local gone = redis.call('ZRANGEBYSCORE', DELETED_UNTIL, '-inf', at, 'LIMIT', 0, 100)
  if redis.call('ZCARD', DELETED_UNTIL) > DELETED_KEPT then
    gone = redis.call('ZRANGE', DELETED_UNTIL, 0, redis.call('ZCARD', DELETED_UNTIL) - DELETED_KEPT - 1)
  end
  for _, field in ipairs(gone) do
    redis.call('HDEL', DELETED, field)
    redis.call('ZREM', DELETED_UNTIL, field)
  end
end

local function note_deletion(field, number)
  local before = tonumber(redis.call('HGET', DELETED, field) or 0)
  redis.call('HSET', DELETED, field, string.format('%.0f', math.max(before, number)))
  redis.call('ZREM', DELETED_UNTIL, field)
end

-- The number of a deletion that wins over this one of the same document, if there is any.
local function overtaken_by(field, number)
  local deletion = redis.call('HGET', DELETED, field)
  return deletion and tonumber(deletion) > number and deletion or nil
end

local function drop_pending(field)
  local count, content = read_pending(field)
  if not count then return end
  if count > 1 then
    redis.call('HSET', PENDING, field, count - 1 .. ' ' .. content)
    return
  end
  redis.call('HDEL', PENDING, field)
  if redis.call('HEXISTS', DELETED, field) == 1 then
    redis.call('ZADD', DELETED_UNTIL, now() + DELETED_KEPT_S, field)
  end
end

-- Take out a dead letter: an entry {id, {'letter', letter, 'document', field}} of the stream. First what a full Redis allows.
local function unearth(dead, dead_bytes, entry)
  redis.call('XDEL', dead, entry[1])
  redis.call('DECRBY', dead_bytes, #entry[2][2])
  if entry[2][4] then drop_pending(entry[2][4]) end
end

-- The same with these ids, where they still are; the reply counts them.
local function discard(dead, dead_bytes, ids)
  local gone = 0
  for _, id in ipairs(ids) do
    local entry = redis.call('XRANGE', dead, id, id)[1]
    if entry then
      unearth(dead, dead_bytes, entry)
      gone = gone + 1
    end
  end
  return gone
end

-- Keep a dead letter, which is pending; the oldest go when there are too many, or too many bytes of them.
local function bury(dead, dead_bytes, letter, field, most, most_bytes)
  if redis.call('XLEN', dead) == 0 then redis.call('SET', dead_bytes, 0) end
  redis.call('XADD', dead, '*', 'letter', letter, 'document', field)
  redis.call('INCRBY', dead_bytes, #letter)
  while redis.call('XLEN', dead) > most or tonumber(redis.call('GET', dead_bytes)) > most_bytes do
    local oldest = redis.call('XRANGE', dead, '-', '+', 'COUNT', 1)[1]
    if not oldest then break end
    unearth(dead, dead_bytes, oldest)
  end
end

-- outcomes: {{index, state, points, truncated, error, dead letter, id ('': look it up), unchanged, written}, ...}. One that
-- may have been written (1) is not settled when a deletion wins over it: what it wrote has to go first. Such ones are the second result, as
-- {index, number of the deletion, ...}. The first outcome of a document wins: it is outstanding exactly as long as its index is a field of the job's `open` hash. `endings` is a
-- string with a byte for each document that is settled and not just done: f(ailed), c(ancelled) or u(nchanged, hence done).
local function settle(keys, job_id, outcomes, ttl, most, most_bytes)
  local job, open, ids, endings, errors, outstanding, totals, jobs, drain, dead, dead_bytes = unpack(keys)
  local at = now()
  local sum = {done = 0, failed = 0, cancelled = 0, points = 0, truncated = 0, unchanged = 0}
  local texts, bytes = 0, 0
  local about = redis.call('HMGET', job, 'collection', 'counted', 'delete', 'sequence', 'numbers')
  local any_deleted, overtaken = about[1] and redis.call('EXISTS', DELETED) == 1, {}
  local numbers = any_deleted and about[5] and cjson.decode(about[5])
  local listed
  local function field_at(outcome)
    local id = outcome[7]
    if id == '' then
      listed = listed or cjson.decode(redis.call('GET', ids) or '[]')
      id = listed[outcome[1] + 1] or ''
    end
    return field_of(about[1], id)
  end
  for _, outcome in ipairs(outcomes) do
    local deletion
    if any_deleted and outcome[9] == 1 then
      local number = numbers and numbers[outcome[1] + 1] or about[4] + outcome[1]
      deletion = overtaken_by(field_at(outcome), number)
    end
    local size = redis.call('HGET', open, outcome[1])
    if deletion then
      overtaken[#overtaken + 1] = outcome[1]
      overtaken[#overtaken + 1] = deletion
    elseif size then
      redis.call('HDEL', job, 'tries:' .. outcome[1], 'token:' .. outcome[1])
      redis.call('HDEL', open, outcome[1])
      if outcome[3] > 1 then sum.chunked = (sum.chunked or 0) + 1 end
      texts, bytes = texts + 1, bytes + math.abs(tonumber(size))
      sum[outcome[2]] = sum[outcome[2]] + 1
      sum.points = sum.points + outcome[3]
      sum.truncated = sum.truncated + outcome[4]
      sum.unchanged = sum.unchanged + outcome[8]
      local ending = outcome[8] == 1 and 'unchanged' or outcome[2]
      if ending ~= 'done' then
        redis.call('SETRANGE', endings, outcome[1], string.sub(ending, 1, 1))
      end
      if outcome[5] ~= '' and redis.call('LLEN', errors) < 100 then
        redis.call('RPUSH', errors, outcome[5])
      end
      local field = field_at(outcome)
      if outcome[6] ~= '' then
        if not about[2] then add_pending(field, '*') end
        bury(dead, dead_bytes, outcome[6], field, most, most_bytes)
        redis.call('HINCRBY', totals, 'dead_letters', 1)
      elseif about[2] then
        drop_pending(field)
      end
    end
  end
  if texts == 0 then return 0, overtaken end
  for name, count in pairs(sum) do
    if count ~= 0 then
      redis.call('HINCRBY', job, name, count)
      redis.call('HINCRBY', totals, name, count)
    end
  end
  local left = redis.call('HINCRBY', outstanding, 'texts', -texts)
  -- what a worker of an earlier version has settled is still in there
  if left == 0 and redis.call('XLEN', dead) == 0 and redis.call('DEL', PENDING) == 1 then
    for _, field in ipairs(redis.call('HKEYS', DELETED)) do
      redis.call('ZADD', DELETED_UNTIL, 'NX', at + DELETED_KEPT_S, field)
    end
  end
  if any_deleted then forget_deletions(at) end
  redis.call('HINCRBY', outstanding, 'bytes', -bytes)
  if sum.done + sum.failed > 0 then record_drain(drain, sum.done + sum.failed, at) end
  if redis.call('EXISTS', open) == 0 then
    local state = redis.call('HEXISTS', job, 'cancelled') == 1 and 'cancelled' or 'done'
    redis.call('HSET', job, 'state', state, 'settled_at', at)
    -- a deletion explains for as long as any job that it won over why nothing is there
    local kept_s = about[3] and 2 * ttl or ttl
    for _, key in ipairs({job, ids, endings, errors}) do redis.call('EXPIRE', key, kept_s) end
    redis.call('ZREM', jobs, job_id)
  end
  return texts, overtaken
end

-- A query counts no more, whether it was answered or nobody waits for it; with the last one nothing is left.
local function forget_query(asked, weights, id)
  local weight = tonumber(redis.call('HGET', weights, id) or 0)
  redis.call('ZREM', asked, id)
  redis.call('HDEL', weights, id)
  if redis.call('EXISTS', asked) == 0 then
    redis.call('DEL', weights)
  elseif weight ~= 0 then
    redis.call('HINCRBY', weights, 'total', -weight)
  end
end
