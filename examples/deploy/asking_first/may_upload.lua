-- Ask a policy about a request, and answer with its refusal: /etc/haproxy/may_upload.lua

-- Fields that describe the upload's body or connection: the question to the policy has no body.
local NOT_ASKED = {
    ["content-length"] = true,
    ["transfer-encoding"] = true,
    ["expect"] = true,
    ["connection"] = true,
}

local function ask(txn, url)
    local request = txn.http:req_get_headers()
    local question = {}
    for name, values in pairs(request) do
        if not NOT_ASKED[name] and not name:find("^x%-forwarded%-") then
            question[name] = {}
            for _, value in pairs(values) do
                table.insert(question[name], value)
            end
        end
    end
    question["x-forwarded-method"] = { txn.f:method() }
    question["x-forwarded-uri"] = { txn.f:pathq() }
    question["x-forwarded-for"] = { txn.f:src() }
    for _, name in ipairs({ "content-length", "transfer-encoding" }) do
        if request[name] then
            question["x-forwarded-" .. name] = { request[name][0] }
        end
    end

    local answer = core.httpclient():get({ url = url, headers = question, timeout = 5000 })
    if answer.status == 200 then
        return
    end
    local refusal = txn:reply()
    -- If the policy did not answer, refuse with 503.
    refusal:set_status(answer.status >= 300 and answer.status or 503)
    for _, name in ipairs({ "www-authenticate", "retry-after", "allow", "accept", "location" }) do
        for _, value in pairs(answer.headers and answer.headers[name] or {}) do
            refusal:add_header(name, value)
        end
    end
    refusal:add_header("connection", "close")
    txn:done(refusal)
end

core.register_action("may_upload", { "http-req" }, ask, 1)
