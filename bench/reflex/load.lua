-- wrk: posts one body over and over (BODY, a file), or texts that differ (VARY=1), and prints the figures as JSON.
local file = assert(io.open(os.getenv("BODY"), "rb"))
local body = file:read("*a")
file:close()
local vary = os.getenv("VARY") == "1"
local count = 0

wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = body

function init()
  if not vary then
    local same = wrk.format()
    request = function() return same end
  end
end

-- Eight digits in the place of eight letters: the size stays, the cache knows none of them.
function request()
  count = count + 1
  return wrk.format(nil, nil, nil, (body:gsub("NNNNNNNN", string.format("%08d", count), 1)))
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"seconds":%f,"errors":%d,"p50":%f,"p95":%f,"p99":%f,"max":%f}\n',
    summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, latency:percentile(99) / 1000, latency.max / 1000))
end
