-- Begin the leases of messages anew, of those that are still held.
-- KEYS unacked_index   ARGV tag...
-- A full Redis refuses ZADD as a script's first write, but not after another one.
redis.call('ZREM', KEYS[1], '')
local at = now()
for _, tag in ipairs(ARGV) do redis.call('ZADD', KEYS[1], 'XX', at, tag) end
