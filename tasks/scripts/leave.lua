-- Nobody waits for this query any more.
-- KEYS asked, weights, queue   ARGV id, message...
forget_query(KEYS[1], KEYS[2], ARGV[1])
local taken = 0
for number = 2, #ARGV do taken = taken + redis.call('LREM', KEYS[3], 1, ARGV[number]) end
return taken
