-- Shared by the delivery scripts: Redis' own clock, and the place for what nobody can read.
local function now()
  local t = redis.call('TIME')
  return tonumber(t[1]) + tonumber(t[2]) / 1000000
end

local function quarantine(list, totals, item)
  redis.call('LPUSH', list, item)
  redis.call('LTRIM', list, 0, 999)
  redis.call('HINCRBY', totals, 'quarantined', 1)
end
