"""A gRPC server of octets: no generated code, so that grpcio alone is enough. Prints its port once it serves."""

import sys
import threading
import time
from concurrent import futures

import grpc

CANCELLED = threading.Event()


def echo(request, context):
    context.set_trailing_metadata((("tail", "of-unary"), ("tail-bin", b"\x00\xff")))
    context.send_initial_metadata((("saw", dict(context.invocation_metadata()).get("word", "nothing")),))
    return request


def fail(_request, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such gift: 红包 %")


def sleep(_request, context):
    """Waits longer than its caller; remembers that it was told to give up."""
    context.add_callback(CANCELLED.set)
    time.sleep(5)
    return b"too late"


def left(_request, context):
    return str(context.time_remaining()).encode()


def cancelled(_request, _context):
    return b"yes" if CANCELLED.wait(5) else b"no"


def count(request, _context):
    for n in range(int(request)):
        yield b"%d" % n


def flood(request, _context):
    for _ in range(int(request)):
        yield b"x" * 65536


def gather(requests, _context):
    return b"%d" % sum(len(r) for r in requests)


def talk(requests, context):
    for request in requests:
        yield request[::-1]
    context.set_trailing_metadata((("tail", "of-talk"),))


CALLS = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Sleep": grpc.unary_unary_rpc_method_handler(sleep),
    "Left": grpc.unary_unary_rpc_method_handler(left),
    "Cancelled": grpc.unary_unary_rpc_method_handler(cancelled),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Flood": grpc.unary_stream_rpc_method_handler(flood),
    "Gather": grpc.stream_unary_rpc_method_handler(gather),
    "Talk": grpc.stream_stream_rpc_method_handler(talk),
}

server = grpc.server(futures.ThreadPoolExecutor(max_workers=16))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("tide.Test", CALLS),))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
sys.stdin.read()
