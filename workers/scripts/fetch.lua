-- Take messages off the queues, each recorded as held in the same step.
-- KEYS unacked, unacked_index, quarantine, totals, list...   (lists: by priority, then by queue)
-- ARGV most_bytes, queues, rotate, then for each queue: most, record
-- Reply {{emptied, one flag a queue}, quarantined, {list number, tag, item}, ...}
local unacked, index, quarantined_items, totals = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local most_bytes, queues = tonumber(ARGV[1]), tonumber(ARGV[2])
local rotate = ARGV[3] == '1'
local left, records, emptied = {}, {}, {}
for queue = 0, queues - 1 do
  left[queue] = tonumber(ARGV[4 + 2 * queue])
  records[queue] = ARGV[5 + 2 * queue] == '1'
end
local at, first, taken, bytes, quarantined = now(), 0, 0, 0, 0
local reply = {}

-- A key of another type fails here, before anything is taken.
redis.call('HLEN', unacked)
redis.call('ZCARD', index)

-- The message's tag and where it goes when it comes back, or nothing if kombu could not read it.
local function read(item)
  local is_json, message = pcall(cjson.decode, item)
  local properties = is_json and type(message) == 'table' and message['properties']
  local info = type(properties) == 'table' and properties['delivery_info']
  if type(info) ~= 'table' then return end
  local tag, exchange, routing_key = properties['delivery_tag'], info['exchange'], info['routing_key']
  if type(tag) ~= 'string' or type(routing_key) ~= 'string' then return end
  if type(exchange) ~= 'string' then exchange = '' end
  return tag, cjson.encode(exchange) .. ',' .. cjson.encode(routing_key)
end

local function take(number, queue)
  local list = KEYS[4 + number]
  if left[queue] == 0 then return false end
  local item = redis.call('LINDEX', list, -1)
  if not item then return false end
  local tag, destination = read(item)
  -- First of all writes: a Redis that is full refuses none after it, and draining makes room.
  redis.call('RPOP', list)
  left[queue] = left[queue] - 1
  if not tag then
    quarantine(quarantined_items, totals, item)
    quarantined = quarantined + 1
    return true
  end
  if records[queue] then
    redis.call('ZADD', index, at, tag)
    redis.call('HSET', unacked, tag, '[' .. item .. ',' .. destination .. ']')
  end
  taken, bytes = taken + 1, bytes + #item
  reply[taken] = {number, tag, item}
  return true
end

local function take_next()
  for priority = 0, (#KEYS - 4) / queues - 1 do
    for turn = 0, queues - 1 do
      local queue = (first + turn) % queues
      if take(priority * queues + queue + 1, queue) then
        if rotate then first = (queue + 1) % queues end
        return true
      end
    end
  end
  return false
end

while bytes < most_bytes do
  if not take_next() then break end
end
for queue = 0, queues - 1 do
  emptied[queue + 1] = 1
  for priority = 0, (#KEYS - 4) / queues - 1 do
    local list = KEYS[4 + priority * queues + queue + 1]
    if redis.call('EXISTS', list) == 1 then emptied[queue + 1] = 0 end
  end
end
return {emptied, quarantined, unpack(reply)}
