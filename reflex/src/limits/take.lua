-- Takes from token buckets, all takes of one call in one step, by this server's clock.
--
-- A bucket is one integer: the time, microseconds since 1970, at which it will be full again (the theoretical arrival
-- time of the generic cell rate algorithm, ITU-T I.371). KEYS are the buckets; ARGV begins with two integers for each:
-- microseconds for one token to come back, and how many it holds. Then follow the groups: how many requests, tokens for
-- each of them, how many buckets, and the places of these in KEYS. A request is admitted where all its buckets have its
-- tokens, else it takes nothing. Five integers answer each group: requests admitted, the place of the bucket that
-- decides, tokens left in that, microseconds until it is full, microseconds until the next request of the group can be
-- admitted.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local interval, full, changed = {}, {}, {}
local stored = redis.call('MGET', unpack(KEYS))
for i = 1, #KEYS do
  interval[i] = tonumber(ARGV[2 * i - 1])
  local holds = tonumber(ARGV[2 * i]) * interval[i]
  -- Never further ahead than an empty bucket: after a lower limit, or a clock that was put back.
  full[i] = math.min(math.max(tonumber(stored[i] or now) or now, now), now + holds)
  stored[i] = holds
end

local answer = {}
local at = 2 * #KEYS
while at < #ARGV do
  local requests, cost, buckets = tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3])
  at = at + 3
  local admitted = requests
  for b = 1, buckets do
    local i = tonumber(ARGV[at + b])
    local left = math.floor((now + stored[i] - full[i]) / interval[i])
    admitted = math.min(admitted, math.floor(left / cost))
  end
  local decides, left, wait
  for b = 1, buckets do
    local i = tonumber(ARGV[at + b])
    if admitted > 0 then
      full[i] = full[i] + admitted * cost * interval[i]
      changed[i] = true
    end
    local now_left = math.floor((now + stored[i] - full[i]) / interval[i])
    local now_wait = math.max(full[i] + cost * interval[i] - now - stored[i], 0)
    if not decides or now_wait > wait or (now_wait == wait and now_left < left) then
      decides, left, wait = i, now_left, now_wait
    end
  end
  at = at + buckets
  local place = #answer
  answer[place + 1] = admitted
  answer[place + 2] = decides
  answer[place + 3] = left
  answer[place + 4] = full[decides] - now
  answer[place + 5] = wait
end

for i in pairs(changed) do
  redis.call('SET', KEYS[i], string.format('%.0f', full[i]), 'PX', math.ceil((full[i] - now) / 1000))
end
return answer
