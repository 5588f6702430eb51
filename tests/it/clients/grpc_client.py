"""Calls everything that grpc_server.py offers: `grpc_client.py HOST:PORT [CA]`. Says "all good" at the end."""

import queue
import sys
import time

import grpc

target, ca = sys.argv[1], sys.argv[2:]
OPTIONS = [("grpc.ssl_target_name_override", "grpc.example"), ("grpc.default_authority", "grpc.example")]
if ca:
    with open(ca[0], "rb") as file:
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(file.read()), OPTIONS)
else:
    channel = grpc.insecure_channel(target, OPTIONS)


def of(name):
    return f"/tide.Test/{name}"


def fails(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call went well")


# One message each way, with metadata before and behind.
for body in (b"", b"gift", b"\x00" * 1_000_000):
    answer, call = channel.unary_unary(of("Echo")).with_call(body, metadata=(("word", "tide"),), timeout=10)
    assert answer == body
    assert dict(call.initial_metadata())["saw"] == "tide", call.initial_metadata()
    tail = dict(call.trailing_metadata())
    assert tail["tail"] == "of-unary" and tail["tail-bin"] == b"\x00\xff", tail

# A status is not an error of the edge, and its words arrive as they were said.
error = fails(lambda: channel.unary_unary(of("Fail"))(b"", timeout=10))
assert error.code() == grpc.StatusCode.NOT_FOUND and error.details() == "no such gift: 红包 %", error
error = fails(lambda: channel.unary_unary(of("Nothing"))(b"", timeout=10))
assert error.code() == grpc.StatusCode.UNIMPLEMENTED, error

# The deadline goes with the call, less what was spent, and a call that is given up is given up there too.
remaining = float(channel.unary_unary(of("Left"))(b"", timeout=7))
assert 0 < remaining < 7.1, remaining
began = time.monotonic()
error = fails(lambda: channel.unary_unary(of("Sleep"))(b"", timeout=0.3))
assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
assert time.monotonic() - began < 4, "the deadline was not kept"
assert channel.unary_unary(of("Cancelled"))(b"", timeout=10) == b"yes"

# Streams: many answers, many requests, and both at once, one in step with the other.
counted = list(channel.unary_stream(of("Count"))(b"1000", timeout=20))
assert counted == [b"%d" % n for n in range(1000)]
assert sum(len(part) for part in channel.unary_stream(of("Flood"))(b"160", timeout=30)) == 160 * 65536
assert channel.stream_unary(of("Gather"))((b"y" * 65536 for _ in range(160)), timeout=30) == b"%d" % (160 * 65536)
requests = queue.Queue()
call = channel.stream_stream(of("Talk"))(iter(requests.get, None), timeout=20)
for n in range(50):
    word = b"word-%d" % n
    requests.put(word)
    assert next(call) == word[::-1]
requests.put(None)
assert list(call) == []
assert dict(call.trailing_metadata())["tail"] == "of-talk"

print("all good")
