-- Which documents of a message are not settled? Mark them as started. How did the others end?
-- KEYS job, open, endings, totals   ARGV start, count, ids...
-- Uncontested: whoever else may still write the document writes the same. Overtaken, as {index, number, ...}: a deletion wins over it.
-- A deletion begins to win when it is claimed.
-- It has begun before, and nobody has said how that ended: it is a suspect.
local found = redis.call('HMGET', KEYS[1], 'sequence', 'begun:' .. ARGV[1], 'numbers', 'created_at', 'collection', 'counted', 'delete')
if not found[1] then return {'expired'} end
allow_writes_when_full(KEYS[1])
local start, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local endings = redis.call('GETRANGE', KEYS[3], start, start + count - 1)
local ended = {f = 0, c = 0, done = 0}
local indices, uncontested, overtaken = {}, {}, {}
local numbers = found[3] and cjson.decode(found[3])
local any_deleted = redis.call('EXISTS', DELETED) == 1
for offset = 0, count - 1 do
  local size = tonumber(redis.call('HGET', KEYS[2], start + offset))
  if size then
    -- a negative size marks a document that has started: cancelling leaves it alone
    if size > 0 then redis.call('HSET', KEYS[2], start + offset, -size) end
    indices[#indices + 1] = start + offset
    local id = ARGV[3 + offset]
    local field = id and field_of(found[5], id)
    local number = numbers and numbers[start + offset + 1] or tonumber(found[1]) + start + offset
    if field and found[7] then
      note_deletion(field, number)
    elseif field then
      local _, content = read_pending(field)
      if found[6] and content and content ~= '*' then uncontested[#uncontested + 1] = start + offset end
      local deletion = any_deleted and overtaken_by(field, number)
      if deletion then
        overtaken[#overtaken + 1] = start + offset
        overtaken[#overtaken + 1] = deletion
      end
    end
  else
    local ending = string.sub(endings, offset + 1, offset + 1)
    if not ended[ending] then ending = 'done' end
    ended[ending] = ended[ending] + 1
  end
end
local at = now()
if found[2] then redis.call('HINCRBY', KEYS[4], 'redelivered', 1) end
if #indices > 0 then
  redis.call('HSETNX', KEYS[1], 'started_at', at)
  redis.call('HSET', KEYS[1], 'begun:' .. ARGV[1], 1)
end
local waited = string.format('%.6f', at - (tonumber(found[4]) or at))
return {'claimed', found[1], found[2] and 1 or 0, ended.done, ended.f, indices, found[3] or '', waited, uncontested, overtaken}
