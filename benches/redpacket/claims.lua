-- One claim after the other, each for a user of its own: wrk -s claims.lua URL -- FIRST
local user = 0
function init(args) user = tonumber(args[1]) or 0 end
function request()
  user = user + 1
  local body = '{"packet_id":"p1","gift_id":"gold-ingots","zone_id":"hh-1","role_id":"r1"}'
  return wrk.format("POST", "/v1/claims", { ["x-user-id"] = "u" .. user, ["content-type"] = "application/json" }, body)
end
