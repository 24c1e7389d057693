-- Remove dead letters, those with these ids or all of them; the reply counts them.
-- KEYS dead, dead_bytes   ARGV id...
if #ARGV > 0 then return discard(KEYS[1], KEYS[2], ARGV) end
allow_writes_when_full(PENDING)
local start = '-'
while true do
  local entries = redis.call('XRANGE', KEYS[1], start, '+', 'COUNT', 16)
  if #entries == 0 then break end
  for _, entry in ipairs(entries) do
    if entry[2][4] then drop_pending(entry[2][4]) end
    start = '(' .. entry[1]
  end
end
-- not DEL: the stream goes on counting where it was, and no id is given twice
local gone = redis.call('XTRIM', KEYS[1], 'MAXLEN', 0)
redis.call('DEL', KEYS[2])
return gone
