-- A key's texts, against its rate: a bucket that holds a minute's texts and drains evenly.
-- KEYS rate   ARGV texts (below 0: given back), texts a minute
-- Replies 0 when they fit in and are counted, else how many seconds later they will.
local rate, texts, per_minute = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local at = now()
local seen = redis.call('HMGET', rate, 'level', 'at')
local since = math.max(0, at - (tonumber(seen[2]) or at))
local level = math.max(0, (tonumber(seen[1]) or 0) - since * per_minute / 60) + texts
if texts > 0 and level > per_minute then
  return math.max(1, math.ceil((level - per_minute) * 60 / per_minute))
end
if level <= 0 then
  redis.call('DEL', rate)
else
  redis.call('HSET', rate, 'level', level, 'at', at)
  redis.call('EXPIRE', rate, math.ceil(level * 60 / per_minute) + 1)
end
return 0
