-- Cancel what has not started.
-- KEYS job, open, ids, endings, errors, outstanding, totals, jobs, drain   ARGV job_id, ttl
if redis.call('EXISTS', KEYS[1]) == 0 then return -1 end
local entries = redis.call('HGETALL', KEYS[2])
if #entries == 0 then return 0 end
-- what an earlier delivery may have left of it goes with its next one, where a deletion wins over it
local written = redis.call('HEXISTS', KEYS[1], 'delete') == 1 and 0 or 1
local outcomes = {}
for i = 1, #entries, 2 do
  if tonumber(entries[i + 1]) > 0 then
    outcomes[#outcomes + 1] = {entries[i], 'cancelled', 0, 0, '', '', '', 0, written}
  end
end
return (settle(KEYS, ARGV[1], outcomes, ARGV[2], 0, 0))
