-- The tags whose lease has ended, oldest first.
-- KEYS unacked_index   ARGV timeout, most
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now() - tonumber(ARGV[1]), 'LIMIT', 0, ARGV[2])
