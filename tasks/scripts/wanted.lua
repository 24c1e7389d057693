-- Who is still waited for.   KEYS asked   ARGV id...
local at, reply = now(), {}
for number, id in ipairs(ARGV) do
  local until_when = tonumber(redis.call('ZSCORE', KEYS[1], id) or 0)
  reply[number] = until_when > at and 1 or 0
end
return reply
