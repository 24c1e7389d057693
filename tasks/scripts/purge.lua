-- Remove dead letters, those with these ids or all of them; the reply counts them.
-- KEYS dead, dead_bytes   ARGV id...
if #ARGV > 0 then return discard(KEYS[1], KEYS[2], ARGV) end
-- not DEL: the stream goes on counting where it was, and no id is given twice
local gone = redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
redis.call('DEL', KEYS[2])
return gone
