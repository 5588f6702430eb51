"""Asks the running services everything that the OpenAPI document has, and holds each answer against it.

    check.py DOCUMENT SERVICE=URL...

Says which codes were seen of which call, and fails where an answer is not as the document says, where a call was not asked at
all, or where a success was never seen.
"""

import json
import sys
import urllib.error
import urllib.request

import jsonschema

with open(sys.argv[1]) as file:
    DOCUMENT = json.load(file)
SERVICES = dict(pair.split("=", 1) for pair in sys.argv[2:])
CHECKER = jsonschema.Draft202012Validator
seen = {}


def validator(schema):
    # References point into the document, so it is the root of every schema.
    whole = {**schema, "components": DOCUMENT["components"]}
    CHECKER.check_schema(whole)
    return CHECKER(whole, format_checker=jsonschema.FormatChecker())


def ask(method, path, body=None, user="ann", query=None, **parts):
    """Asks, and checks what comes. Gives the answer."""
    operation = DOCUMENT["paths"][path][method]
    place, query = path, [f"{name}={value}" for name, value in (query or {}).items()]
    for parameter in operation["parameters"]:
        name = parameter["name"]
        if parameter["in"] == "path":
            place = place.replace(f"{{{name}}}", parts.pop(name))
        elif parameter["in"] == "query" and name in parts:
            query.append(f"{name}={parts.pop(name)}")
    assert not parts, f"{method} {path} has no {parts}"
    url = SERVICES[operation["tags"][0]] + place + ("?" + "&".join(query) if query else "")
    headers = {"content-type": "application/json", **({"x-user-id": user} if user else {})}
    data = None if body is None else (body if isinstance(body, bytes) else json.dumps(body).encode())
    request = urllib.request.Request(url, data, headers, method=method.upper())
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            status, text = response.status, response.read()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read()
    answer = json.loads(text)
    described = operation["responses"].get(str(status))
    assert described, f"{method} {path}: {status} {answer['code']} is not in the document"
    errors = list(validator(described["content"]["application/json"]["schema"]).iter_errors(answer))
    assert not errors, f"{method} {path} {status}: {errors[0].message}\n{json.dumps(answer, indent=1)}"
    seen.setdefault((method, path), set()).add(answer["code"])
    return answer


def gifts():
    assert ask("get", "/v1/gifts")["source"] == "personal"
    assert ask("get", "/v1/gifts", user=None)["source"] == "default"
    ask("get", "/v1/gifts", user="not a name")
    assert ask("get", "/v1/zones", game_id="arena-nine")["roles"]
    ask("get", "/v1/zones", game_id="no-such-game")
    ask("get", "/v1/zones", game_id="arena-nine", user=None)
    assert ask("get", "/v1/recommend", user=None, query={"user": "ann"})["gifts"]
    ask("get", "/v1/recommend", user=None, query={"user": "not%20a%20name"})


def claims():
    wish = {"packet_id": "p", "gift_id": "firecracker", "zone_id": "an-1", "role_id": "r", "idempotency_key": "k"}
    order = ask("post", "/v1/claims", wish)
    assert order["code"] == "ACCEPTED"
    assert ask("post", "/v1/claims", wish)["order_no"] == order["order_no"]
    assert ask("post", "/v1/claims", {**wish, "role_id": "other"})["code"] == "KEY_CONFLICT"
    ask("post", "/v1/claims", {**wish, "packet_id": "q", "idempotency_key": "l", "role_id": ""})
    ask("post", "/v1/claims", {**wish, "packet_id": "q", "idempotency_key": "l", "gift_id": "no-such-gift"})
    ask("post", "/v1/claims", {**wish, "activity_id": "past"})
    assert ask("post", "/v1/claims", {**wish, "activity_id": "future"})["code"] == "NOT_STARTED"
    ask("post", "/v1/claims", b"{")
    ask("post", "/v1/claims", wish, user=None)
    one = {**wish, "gift_id": "only-one", "packet_id": "one"}
    assert ask("post", "/v1/claims", one, user="bob")["code"] == "ACCEPTED"
    assert ask("post", "/v1/claims", one, user="cho")["code"] == "SOLD_OUT"
    number = order["order_no"]
    while ask("get", "/v1/claims/{order_no}", order_no=number)["code"] != "OK":
        pass
    ask("get", "/v1/claims/{order_no}", order_no=number, user="bob")
    ask("get", "/v1/claims/{order_no}", order_no="no-number")


def cash():
    key = "packet-of-the-test-1"
    wish = {"total_fen": 100, "count": 2, "idempotency_key": key}
    path, grab, opening = "/v1/packets/{packet_id}", "/v1/packets/{packet_id}/grab", "/v1/packets/{packet_id}/open"
    assert ask("post", "/v1/packets", wish)["state"] == "FUNDED"
    ask("post", "/v1/packets", wish)
    assert ask("post", "/v1/packets", {**wish, "count": 3})["code"] == "KEY_CONFLICT"
    assert ask("post", "/v1/packets", {**wish, "idempotency_key": "another-of-the-test", "total_fen": 10**9})["code"] == "UNFUNDED"
    ask("post", "/v1/packets", {**wish, "idempotency_key": "short"})
    ask("post", "/v1/packets", {**wish, "count": 0})
    sums = 0
    for user in ("bob", "cho"):
        token = ask("post", grab, {}, user=user, packet_id=key)["grab_token"]
        assert ask("post", opening, {"grab_token": "made-up"}, user=user, packet_id=key)["code"] == "NOT_ELIGIBLE"
        share = ask("post", opening, {"grab_token": token}, user=user, packet_id=key)
        assert ask("post", opening, {"grab_token": token}, user=user, packet_id=key)["amount_fen"] == share["amount_fen"]
        assert ask("post", grab, {}, user=user, packet_id=key)["code"] == "ALREADY_CLAIMED"
        sums += share["amount_fen"]
    assert sums == 100
    assert ask("post", grab, {}, user="dan", packet_id=key)["code"] == "SOLD_OUT"
    ask("post", opening, {"grab_token": ""}, user="dan", packet_id=key)
    ask("post", grab, {}, packet_id="nobody-knows-this-one")
    whole = ask("get", path, user="bob", packet_id=key)
    assert whole["opened"] == 2 and whole["mine"]["rank"] == 1 and [s["rank"] for s in whole["shares"]] == [1, 2]
    page = ask("get", path, user=None, packet_id=key, limit="1")
    assert page["next_after"] == 1 and page["mine"] is None
    ask("get", path, packet_id="nobody-knows-this-one")
    ask("get", path, packet_id=key, after="x")


def main():
    for walk in (gifts, claims, cash):
        walk()
    # What can be forced without breaking a service was seen; a success of every call among it.
    for path, calls in DOCUMENT["paths"].items():
        for method in calls:
            codes = seen.get((method, path))
            assert codes, f"{method} {path} was not asked"
            assert codes & {"OK", "ACCEPTED", "PENDING"}, f"{method} {path} never went well: {codes}"
            print(f"{method.upper():5} {path:32} {' '.join(sorted(codes))}")
    print("all good")


main()
