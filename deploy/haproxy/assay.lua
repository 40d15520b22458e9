-- Calls Assay, for haproxy.cfg: http-request lua.assay /verify?scope=orders:read
--
-- For a yes it sets the variable txn.assay. haproxy.cfg denies requests without it, because HAProxy continues a request whose Lua
-- has failed.

local IDENTITY = {
  'x-auth-customer', 'x-auth-subject', 'x-auth-scope', 'x-auth-audience',
  'x-auth-session', 'x-auth-token-id', 'x-auth-expires', 'x-auth-claims',
}

-- The socket of `listen assay`, where HAProxy itself keeps the connections and skips a replica that is down.
local SOCKET = 'abns@assay'

-- Joins all values of a header. So two Authorization headers are no valid token, even if one of them was.
local function joined(headers, name)
  local values = {}
  for _, value in pairs(headers[name] or {}) do table.insert(values, value) end
  return table.concat(values, ', ')
end

-- Sends only the headers that Assay uses. The client's other headers are not sent.
local function question_of(txn)
  local given = txn.http:req_get_headers()
  local headers = { host = { 'assay' }, ['x-request-id'] = { joined(given, 'x-request-id') } }
  if given['authorization'] then headers['authorization'] = { joined(given, 'authorization') } end
  -- With TOKEN_COOKIE=session, and only that cookie:
  -- headers['cookie'] = { 'session=' .. (txn.sf:req_cook('session')) }
  return headers
end

local function refuse(txn, status, name, value)
  local reply = txn:reply({ status = status })
  reply:add_header('content-length', '0')
  reply:add_header('cache-control', 'no-store')
  if value ~= '' then reply:add_header(name, value) end
  txn:done(reply)
end

-- haproxy.cfg has removed the client's headers with these names. Returns false if there was no room for all of them
-- (tune.maxrewrite), because a partial identity must not be used.
local function identify(txn, headers)
  for _, name in ipairs(IDENTITY) do
    local value = joined(headers, name)
    if value ~= '' then txn.http:req_set_header(name, value) end
  end
  local written = txn.http:req_get_headers()
  for _, name in ipairs(IDENTITY) do
    if joined(written, name) ~= joined(headers, name) then return false end
  end
  return true
end

core.register_action('assay', { 'http-req' }, function(txn, question)
  local answer = core.httpclient():get({
    url = 'http://127.0.0.1' .. question,
    dst = SOCKET,
    headers = question_of(txn),
  })
  local headers = answer.headers or {}
  -- Only a 200 with the customer of the token is a yes; any other 2xx does not come from Assay.
  local names = joined(headers, 'x-auth-customer') ~= ''
  if answer.status == 200 and names and identify(txn, headers) then
    txn:set_var('txn.assay', 'yes')
  elseif answer.status == 401 or answer.status == 403 then
    refuse(txn, answer.status, 'www-authenticate', joined(headers, 'www-authenticate'))
  else
    -- It is unknown whether the token is valid, so the client should retry.
    refuse(txn, 503, 'retry-after', '1')
  end
end, 1)
