-- Take in a query: count it within the limit and enqueue its messages. Those whose time is over count no more.
-- KEYS asked, weights, queue   ARGV id, weight, limit, patience (s), message...
-- Replies whether it was taken in.
local asked, weights, queue = KEYS[1], KEYS[2], KEYS[3]
local weight, limit, patience = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local at = now()
for _, id in ipairs(redis.call('ZRANGEBYSCORE', asked, '-inf', at)) do
  forget_query(asked, weights, id)
end
if (tonumber(redis.call('HGET', weights, 'total')) or 0) + weight > limit then return 0 end
redis.call('ZADD', asked, at + patience, ARGV[1])
redis.call('HSET', weights, ARGV[1], weight)
redis.call('HINCRBY', weights, 'total', weight)
for number = 5, #ARGV do redis.call('LPUSH', queue, ARGV[number]) end
-- Should this process die and no worker come, all of it goes by itself.
for _, key in ipairs(KEYS) do redis.call('EXPIRE', key, math.ceil(patience) + 60) end
return 1
