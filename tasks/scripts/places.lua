-- Whose messages stand on a page of a list, or of the hash of messages that workers hold?
-- KEYS list or hash   ARGV header, cursor (0 first), items of a page
-- The reply: the next cursor (0: the end was reached), then job, start and count of each message.
local header, cursor, page = ARGV[1], ARGV[2], tonumber(ARGV[3])
local quoted = '"' .. header .. '"'

-- Decoding a message would cost more than all the rest: its header is short and easy to find. One
-- of a foreign producer has none; its job, once adopted, has the id of its task.
local function place_of(item)
  local at = string.find(item, quoted, 1, true)
  if at then
    local nearby = string.sub(item, at, at + 1000)
    local job = string.match(nearby, '"job":%s*"([^"\\]+)"')
    local start, count = string.match(nearby, '"start":%s*(%d+)'), string.match(nearby, '"count":%s*(%d+)')
    if job and start and count then return job, start, count end
  end
  local read, message = pcall(cjson.decode, item)
  if not read or type(message) ~= 'table' then return nil end
  local headers = (message['headers'] or (type(message[1]) == 'table' and message[1]['headers']))
  if type(headers) ~= 'table' then return nil end
  local place = headers[header]
  if type(place) == 'table' then return place['job'], place['start'], place['count'] end
  return headers['id'], 0, 2 ^ 31
end

local items, next_cursor = {}, '0'
if redis.call('TYPE', KEYS[1])['ok'] == 'hash' then
  local found = redis.call('HSCAN', KEYS[1], cursor, 'COUNT', page)
  next_cursor = found[1]
  for i = 2, #found[2], 2 do items[#items + 1] = found[2][i] end
else
  local first = tonumber(cursor)
  items = redis.call('LRANGE', KEYS[1], first, first + page - 1)
  if #items == page then next_cursor = tostring(first + page) end
end
local reply = {next_cursor}
for _, item in ipairs(items) do
  local job, start, count = place_of(item)
  if type(job) == 'string' then
    for _, value in ipairs({job, tostring(start), string.format('%d', count)}) do reply[#reply + 1] = value end
  end
end
return reply
