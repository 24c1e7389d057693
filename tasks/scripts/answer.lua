-- Give answers to those who still wait. A query whose questions are all answered counts no more.
-- KEYS asked, weights, box...   ARGV seconds to keep an answer, key of what a child has taken in the middle of a
-- pass, or '', then for each box: id, weight, answer
-- Replies how many were given.
local asked, weights, taken, at, given = KEYS[1], KEYS[2], ARGV[2], now(), 0
if taken ~= '' then redis.call('DEL', taken) end
for number = 3, #KEYS do
  local id, weight, answer = unpack(ARGV, 3 * number - 6, 3 * number - 4)
  local until_when = tonumber(redis.call('ZSCORE', asked, id) or 0)
  if until_when > at then
    redis.call('RPUSH', KEYS[number], answer)
    redis.call('EXPIRE', KEYS[number], ARGV[1])
    redis.call('HINCRBY', weights, 'total', -weight)
    if redis.call('HINCRBY', weights, id, -weight) <= 0 then forget_query(asked, weights, id) end
    given = given + 1
  end
end
return given
