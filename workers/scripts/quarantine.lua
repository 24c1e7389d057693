-- Set a held message aside that Python could not read.
-- KEYS unacked, unacked_index, quarantine, totals   ARGV tag, item
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('HDEL', KEYS[1], ARGV[1]) == 0 then return 0 end
quarantine(KEYS[3], KEYS[4], ARGV[2])
return 1
