#!/usr/bin/env python3
"""A game that slows down, fails, and is silent: what those who claim notice of it, and how often the game is told.

    benches/redpacket/game.py --program target/release/springtide --rate 200 --claims 150 --seconds 10

Starts a claim process that delivers to a game in this script, and claims at a steady rate (open loop: late answers delay nobody).
Prints for each phase the latency of claims, and the most deliveries that the game saw within any one second beside the rate that
was configured. At the end every claim must have been applied once. Standard library only.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time

# A calm before and after each fault: what claims cost grows with the file, whatever the game does.
PHASES = [("calm", {}), ("slow: 1 s each", {"delay": 1}), ("calm", {}), ("fails: 503", {"status": 503}), ("calm", {}),
          ("silent", {"silent": True}), ("calm", {})]


class Game:
    def __init__(self):
        self.mode, self.told, self.applied, self.repeats = {}, [], set(), 0

    async def serve(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                length = int(head.split("content-length:")[1].split("\r\n")[0])
                order = json.loads(await reader.readexactly(length))["order_no"]
                self.told.append(time.monotonic())
                mode = self.mode
                if mode.get("silent"):
                    await asyncio.sleep(30)
                await asyncio.sleep(mode.get("delay", 0))
                status = mode.get("status", 200)
                if status == 200:
                    self.repeats += order in self.applied
                    self.applied.add(order)
                body = json.dumps({"order_no": order}).encode()
                writer.write(b"HTTP/1.1 %d x\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    def busiest(self, begin, end):
        """The most within any second that lies in that time."""
        told, most, first = [at for at in self.told if begin <= at < end], 0, 0
        for last, at in enumerate(told):
            while at - told[first] >= 1:
                first += 1
            most = max(most, last - first + 1)
        return most


class Claims:
    """Connections that are kept, one for each claim under way."""

    def __init__(self, port):
        self.port, self.idle, self.users = port, [], 0

    async def one(self, latencies, codes):
        self.users += 1
        user = self.users
        body = json.dumps({"packet_id": "p", "gift_id": "gold-ingots", "zone_id": "hh-1", "role_id": "r"}).encode()
        began = time.monotonic()
        reader, writer = self.idle.pop() if self.idle else await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"POST /v1/claims HTTP/1.1\r\nhost: c\r\nx-user-id: u%d\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                     % (user, len(body), body))
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head.split("content-length:")[1].split("\r\n")[0]))
        latencies.append(time.monotonic() - began)
        code = head.split(" ")[1]
        codes[code] = codes.get(code, 0) + 1
        self.idle.append((reader, writer))


async def phase(claims, rate, seconds, latencies, codes):
    begin, tasks = time.monotonic(), []
    for n in range(rate * seconds):
        await asyncio.sleep(max(0, begin + n / rate - time.monotonic()))
        tasks.append(asyncio.create_task(claims.one(latencies, codes)))
    await asyncio.gather(*tasks)


async def run(args):
    game = Game()
    server = await asyncio.start_server(game.serve, "127.0.0.1", 0)
    url = "http://127.0.0.1:%d" % server.sockets[0].getsockname()[1]
    good = True
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        process = subprocess.Popen(
            [args.program, "upstream", "claim", "--data", os.path.join(folder, "claims"), "--game", url, "--rate", f"{args.rate} rps",
             "--log", "error"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        try:
            claims = Claims(int(json.loads(process.stdout.readline())["listen"].rsplit(":", 1)[1]))
            await phase(claims, args.claims, 2, [], {})
            print(f"{'phase':16} {'claims':>7} {'p50 ms':>7} {'p99 ms':>7} {'max ms':>7} {'told':>6} {'most in 1 s':>12}  of {args.rate}")
            whole = time.monotonic()
            for name, mode in PHASES:
                game.mode, latencies, codes, begin = mode, [], {}, time.monotonic()
                await phase(claims, args.claims, args.seconds, latencies, codes)
                latencies.sort()
                at = lambda share: 1000 * latencies[min(len(latencies) - 1, int(share * len(latencies)))]
                end = time.monotonic()
                told, most = sum(begin <= t < end for t in game.told), game.busiest(begin, end)
                good &= most <= 1.05 * args.rate + 1 and set(codes) == {"202"}
                print(f"{name:16} {len(latencies):>7} {at(.5):>7.2f} {at(.99):>7.2f} {at(1):>7.1f} {told:>6} {most:>12}  {codes}", flush=True)
            end = time.monotonic() + args.patience
            while len(game.applied) < claims.users and time.monotonic() < end:
                await asyncio.sleep(0.2)
            most = game.busiest(whole, time.monotonic())
            print(f"{claims.users} claims, {len(game.applied)} applied {time.monotonic() - whole:.0f} s after the first, {game.repeats} told "
                  f"again after they were; catching up, the most in any second was {most} of {args.rate}")
            good &= len(game.applied) == claims.users and most <= 1.05 * args.rate + 1
        finally:
            process.terminate()
            process.wait()
    return 0 if good else 1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/springtide")
    parser.add_argument("--rate", type=int, default=200, help="deliveries a second, at most")
    parser.add_argument("--claims", type=int, default=150, help="claims a second")
    parser.add_argument("--seconds", type=int, default=10, help="of each phase")
    parser.add_argument("--patience", type=int, default=300, help="for all to arrive in the end, in s")
    parser.add_argument("--folder", default=".")
    sys.exit(asyncio.run(run(parser.parse_args())))


main()
