-- Add what a pool child has measured to the sums of all, and say how it is now.
-- KEYS stats, children, expiry   ARGV child, row (JSON), ttl in seconds, increments (JSON object)
local at, ttl = now(), tonumber(ARGV[3])
for field, by in pairs(cjson.decode(ARGV[4])) do redis.call('HINCRBYFLOAT', KEYS[1], field, by) end
-- the series of children that were killed go with the next word of any other, or with the whole key
for _, child in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', at)) do
  redis.call('HDEL', KEYS[2], child)
  redis.call('ZREM', KEYS[3], child)
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
redis.call('ZADD', KEYS[3], at + ttl, ARGV[1])
redis.call('EXPIRE', KEYS[2], ttl)
redis.call('EXPIRE', KEYS[3], ttl)
return 1
