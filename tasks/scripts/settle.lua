-- KEYS job, open, ids, endings, errors, outstanding, totals, jobs, drain,
--   dead, dead_bytes   ARGV job_id, ttl, outcomes (JSON), most dead letters, most bytes of them
-- The reply: how many were settled, and what is overtaken by a deletion.
return {settle(KEYS, ARGV[1], cjson.decode(ARGV[3]), ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5]))}
