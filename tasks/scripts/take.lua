-- Take questions off the queue for a child that is in the middle of a pass, the oldest first; what nobody waits
-- for goes without an answer, and what is no question is left to the worker's main process.
-- KEYS asked, queue, taken
-- ARGV task, header, how boxes begin, most messages, most texts, seconds to remember who has taken them
-- Replies the messages. Of one child with all its questions `taken` keeps their places until they are answered.
local asked, queue, taken = KEYS[1], KEYS[2], KEYS[3]
local task, header, boxes = ARGV[1], ARGV[2], ARGV[3]
local most, left = tonumber(ARGV[4]), tonumber(ARGV[5])
local at, messages, places = now(), {}, {}

local function read_place(item)
  local is_json, message = pcall(cjson.decode, item)
  local headers = is_json and type(message) == 'table' and message['headers']
  if type(headers) ~= 'table' or headers['task'] ~= task then return end
  local place = headers[header]
  if type(place) ~= 'table' or type(place['id']) ~= 'string' or type(place['box']) ~= 'string' then return end
  for _, name in ipairs({'part', 'weight', 'texts'}) do
    if type(place[name]) ~= 'number' then return end
  end
  if string.sub(place['box'], 1, #boxes) == boxes then return place end
end

local waiting = redis.call('LRANGE', queue, -most, -1)
for number = #waiting, 1, -1 do
  local place = read_place(waiting[number])
  if place then
    left = left - place['texts']
    if left < 0 and #messages > 0 then break end
    redis.call('LREM', queue, -1, waiting[number])
    local until_when = tonumber(redis.call('ZSCORE', asked, place['id']) or 0)
    if until_when > at then
      messages[#messages + 1] = waiting[number]
      places[#places + 1] = place
    end
  end
end
if #messages > 0 then redis.call('SET', taken, cjson.encode(places), 'EX', ARGV[6]) end
return messages
