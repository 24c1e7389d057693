-- Count a try of a document that runs alone; how many of its tries ended with their process?
-- KEYS job   ARGV index, change (1: a try begins, -1: it ended without blame), a token of this try
if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
allow_writes_when_full(KEYS[1])
local tries, token = 'tries:' .. ARGV[1], 'token:' .. ARGV[1]
if redis.call('HGET', KEYS[1], token) == ARGV[3] then
  return redis.call('HINCRBY', KEYS[1], tries, 0) - 1  -- asked again after a lost reply
end
redis.call('HSET', KEYS[1], token, ARGV[3])
return redis.call('HINCRBY', KEYS[1], tries, ARGV[2]) - 1
