-- KEYS job, open, ids, endings, errors, outstanding, totals, jobs, drain,
--   dead, dead_bytes   ARGV job_id, ttl, outcomes (JSON), most dead letters, most bytes of them
return settle(KEYS, ARGV[1], cjson.decode(ARGV[3]), ARGV[2], tonumber(ARGV[4]), tonumber(ARGV[5]))
