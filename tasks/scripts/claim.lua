-- Which documents of a message are not settled? Mark them as started. How did the others end?
-- KEYS job, open, endings   ARGV start, count
-- It has begun before, and nobody has said how that ended: it is a suspect.
local found = redis.call('HMGET', KEYS[1], 'sequence', 'begun:' .. ARGV[1], 'numbers')
if not found[1] then return {'expired'} end
allow_writes_when_full(KEYS[1])
local start, count = tonumber(ARGV[1]), tonumber(ARGV[2])
local endings = redis.call('GETRANGE', KEYS[3], start, start + count - 1)
local ended = {f = 0, c = 0, done = 0}
local indices = {}
for offset = 0, count - 1 do
  local size = tonumber(redis.call('HGET', KEYS[2], start + offset))
  if size then
    -- a negative size marks a document that has started: cancelling leaves it alone
    if size > 0 then redis.call('HSET', KEYS[2], start + offset, -size) end
    indices[#indices + 1] = start + offset
  else
    local ending = string.sub(endings, offset + 1, offset + 1)
    if not ended[ending] then ending = 'done' end
    ended[ending] = ended[ending] + 1
  end
end
if #indices > 0 then
  redis.call('HSETNX', KEYS[1], 'started_at', now())
  redis.call('HSET', KEYS[1], 'begun:' .. ARGV[1], 1)
end
return {'claimed', found[1], found[2] and 1 or 0, ended.done, ended.f, indices, found[3] or ''}
