-- Takes from buckets, or gives back, for several requests in one go (GCRA, the leaky bucket as a meter).
--
-- KEYS: all buckets of all requests, one request after the other.
-- ARGV: one string of numbers. For each request its number of buckets and the number of tokens (negative: given back), then for each of
--       its buckets the microseconds that a token takes to come back and the tokens that it holds.
-- Returns, as one string: for each request how long it has to wait (-1: it has its tokens), then for each of its
--       buckets the tokens left and how long until it is full. All times are microseconds.
--
-- A bucket's value is the moment at which it is full again; one that is full has none. A request gets its tokens
-- from all of its buckets or from none.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local answer = {}
local key = 0
local next_number = string.gmatch(ARGV[1], '%S+')

while key < #KEYS do
  local buckets, tokens = tonumber(next_number()), tonumber(next_number())
  local before, after, window, interval = {}, {}, {}, {}
  local wait = -1
  for i = 1, buckets do
    interval[i] = tonumber(next_number())
    window[i] = interval[i] * tonumber(next_number())
    before[i] = math.max(tonumber(redis.call('GET', KEYS[key + i]) or now), now)
    after[i] = math.max(before[i] + interval[i] * tokens, now)
    if tokens > 0 then
      wait = math.max(wait, after[i] - window[i] - now)
    end
  end
  local is_given = wait <= 0
  answer[#answer + 1] = string.format('%.0f', is_given and -1 or wait)
  for i = 1, buckets do
    local full_at = is_given and after[i] or before[i]
    if is_given and full_at > now then
      redis.call('SET', KEYS[key + i], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000))
    elseif is_given then
      redis.call('DEL', KEYS[key + i])
    end
    answer[#answer + 1] = string.format('%.0f', math.max(0, math.floor((window[i] - full_at + now) / interval[i])))
    answer[#answer + 1] = string.format('%.0f', full_at - now)
  end
  key = key + buckets
end
return table.concat(answer, ' ')
