-- A message goes back without blame: as if it had not begun, so that it can be cancelled, too. A deletion that has begun cannot:
-- what it wins over may count as done already.
-- KEYS job, open, totals   ARGV start, count
allow_writes_when_full(KEYS[1])
redis.call('HDEL', KEYS[1], 'begun:' .. ARGV[1])
local deletes = redis.call('HEXISTS', KEYS[1], 'delete') == 1
for index = tonumber(ARGV[1]), tonumber(ARGV[1]) + tonumber(ARGV[2]) - 1 do
  local size = tonumber(redis.call('HGET', KEYS[2], index))
  if size and size < 0 and not deletes then redis.call('HSET', KEYS[2], index, -size) end
end
redis.call('HINCRBY', KEYS[3], 'returned', 1)
return 1
