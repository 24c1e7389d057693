-- A page of the dead letters, newest first, bounded in letters and in bytes; one letter always fits.
-- KEYS dead   ARGV where it begins (an id, '(' before it: after that one, '+': the newest), letters, bytes
-- The reply: how many there are in all, 1 if more follow, then id and letter of each.
local start, most, most_bytes = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local page, count, bytes, full = {}, 0, 0, false
while not full and count < most do
  local found = redis.call('XREVRANGE', KEYS[1], start, '-', 'COUNT', math.min(16, most - count))
  if #found == 0 then break end
  for _, entry in ipairs(found) do
    local letter = entry[2][2]
    full = count > 0 and bytes + #letter > most_bytes
    if full then break end
    page[2 * count + 1], page[2 * count + 2] = entry[1], letter
    count, bytes, start = count + 1, bytes + #letter, '(' .. entry[1]
  end
end
local more = count > 0 and #redis.call('XREVRANGE', KEYS[1], start, '-', 'COUNT', 1) or 0
return {redis.call('XLEN', KEYS[1]), more, unpack(page)}
