-- Put a held message back into its queue, unless somebody has done so or settled it.
-- KEYS unacked, unacked_index, list...   ARGV tag, front or back, timeout or '', payload
-- With a timeout: only when the lease has ended. Replies whether it was put back.
local tag, timeout = ARGV[1], tonumber(ARGV[3])
if timeout then
  local renewed_at = tonumber(redis.call('ZSCORE', KEYS[2], tag) or 0)
  if renewed_at > now() - timeout then return 0 end
end
redis.call('ZREM', KEYS[2], tag)
if redis.call('HDEL', KEYS[1], tag) == 0 then return 0 end
local push = ARGV[2] == 'front' and 'RPUSH' or 'LPUSH'
for number = 3, #KEYS do redis.call(push, KEYS[number], ARGV[4]) end
return 1
