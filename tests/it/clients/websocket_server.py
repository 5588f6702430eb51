"""A WebSocket server: echoes, `close` ends with a code of its own. Prints its port once it serves."""

import asyncio

import websockets


async def serve(socket):
    await socket.send("hello " + socket.request_headers.get("X-Forwarded-For", "nobody"))
    async for message in socket:
        if message == "close":
            await socket.close(4001, "as you wish")
            return
        await socket.send(message)


async def main():
    async with websockets.serve(serve, "127.0.0.1", 0, subprotocols=["tide"], max_size=None) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


asyncio.run(main())
