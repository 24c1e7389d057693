-- Take the messages of a job that have no open document left out of a page of the queue, so that
-- cancelled work frees Redis' memory too. A message that was missed is acknowledged without work,
-- and so are those for whose result somebody waits: only their delivery can give them one.
-- KEYS queue, open   ARGV job_id, header, from, to
local removed = 0
for _, item in ipairs(redis.call('LRANGE', KEYS[1], ARGV[3], ARGV[4])) do
  if string.find(item, ARGV[1], 1, true) then
    local read, message = pcall(cjson.decode, item)
    local place = read and message['headers'] and message['headers'][ARGV[2]]
    local awaited = read and message['headers'] and message['headers']['ignore_result'] ~= true
    if type(place) == 'table' and place['job'] == ARGV[1] and not awaited then
      local alive = false
      for index = place['start'], place['start'] + place['count'] - 1 do
        alive = alive or redis.call('HEXISTS', KEYS[2], index) == 1
      end
      if not alive then removed = removed + redis.call('LREM', KEYS[1], 1, item) end
    end
  end
end
return removed
