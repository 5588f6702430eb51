"""Talks with websocket_server.py: `websocket_client.py HOST:PORT [CA]`. Says "open", waits for a line on its input (the edge
is reloaded meanwhile), goes on over the same connection, and says "all good" at the end."""

import asyncio
import os
import ssl
import sys

import websockets

target, ca = sys.argv[1], sys.argv[2:]


def trust():
    context = ssl.create_default_context(cafile=ca[0])
    context.set_alpn_protocols(["http/1.1"])
    return context


async def main():
    more = {"ssl": trust(), "server_hostname": "grpc.example"} if ca else {}
    url = f"{'wss' if ca else 'ws'}://{target}/socket"
    async with websockets.connect(url, subprotocols=["tide"], max_size=None, open_timeout=10, **more) as socket:
        assert socket.subprotocol == "tide", socket.subprotocol
        assert await socket.recv() == "hello 127.0.0.1"
        print("open", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
        for message in ("gift", "红包", b"\x00\xff", os.urandom(1 << 20)):
            await socket.send(message)
            assert await socket.recv() == message
        await asyncio.wait_for(await socket.ping(), 10)
        await socket.send("close")
        try:
            await socket.recv()
            raise AssertionError("it was to be closed")
        except websockets.ConnectionClosed as closed:
            assert (closed.code, closed.reason) == (4001, "as you wish"), closed
    print("all good", flush=True)


asyncio.run(main())
