#!/usr/bin/env python3
"""One gift, many claimants, three datacenters: who gets it, whether anybody gets too much, and how long it takes.

    benches/redpacket/stampede.py --program target/release/springtide --stock 30000 --claimants 200000

Starts in each datacenter an edge and a claim process with its own store on disk, each the home of a third of the users with a
third of the stock. Every user claims once, over the edge of a datacenter that has nothing to do with their home, one in ten
twice. Then it reads all orders of all stores, and compares them with what everybody was told: as many orders as there was stock,
no user with two, everybody who was told 202 or 200 has one, nobody who was told 410 has any. Standard library only.
"""

import argparse
import asyncio
import collections
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from multiprocessing import Process, Queue

DATACENTERS = ["shenzhen", "shanghai", "tianjin"]
GIFT = "lion-lamp"


def start(*command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    return process, json.loads(process.stdout.readline())


def free_port(host):
    with socket.socket() as one:
        one.bind((host, 0))
        return one.getsockname()[1]


def configuration(name, claims):
    """An edge that sends every user's claims home."""
    lines = ["[node]", f'name = "{name}"', "workers = 1"]
    for at, dc in enumerate(claims):
        lines += ["[[datacenter]]", f'name = "{dc}"', f'addresses = ["192.0.2.{at + 1}"]']
    lines += ["[[service]]", 'name = "claim"', 'balance = "user-home"', 'homes = "homes.toml"', 'home_down = "elsewhere"', 'deadline = "2s"']
    lines += [f'backends.{dc} = ["{at}"]' for dc, at in claims.items()]
    lines += ["[[listener]]", 'name = "public"', 'listen = "127.0.0.1:0"']
    lines += ["[[route]]", 'match = { path_prefix = "/v1/claims" }', 'service = "claim"', 'user = "header:x-user-id"']
    return "\n".join(lines) + "\n"


async def client(address, users, told, latencies):
    """One connection after the other's answer, for as long as there are users."""
    host, port = address.rsplit(":", 1)
    reader = writer = None
    body = json.dumps({"packet_id": "p", "gift_id": GIFT, "zone_id": "hh-1", "role_id": "r"}).encode()
    for user in users:
        while True:
            began = time.monotonic()
            if writer is None:
                reader, writer = await asyncio.open_connection(host, port)
            writer.write(b"POST /v1/claims HTTP/1.1\r\nhost: c\r\nx-user-id: %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                         % (user.encode(), len(body), body))
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
                await reader.readexactly(int(length))
            except (ConnectionError, asyncio.IncompleteReadError):
                # An edge ends a connection after a number of requests; the same claim again gets the same order.
                writer.close()
                writer = None
                continue
            if b"connection: close" in head.lower():
                writer.close()
                writer = None
            status = int(head[9:12])
            latencies.append(time.monotonic() - began)
            told.append((user, status))
            if status < 500:
                break
            await asyncio.sleep(0.05 + random.random() / 10)


def crowd(address, users, clients, out):
    async def all_of_them():
        told, latencies, queue = [], [], iter(users)
        await asyncio.gather(*(client(address, queue, told, latencies) for _ in range(clients)))
        return told, latencies
    out.put(asyncio.run(all_of_them()))


def orders(address):
    after, found = "", []
    while True:
        with urllib.request.urlopen(f"http://{address}/internal/orders?limit=500{after}") as answer:
            trails = json.load(answer)["trails"]
        if not trails:
            return found
        found += [trail["order"] for trail in trails]
        after = "&after=" + trails[-1]["order"]["order_no"]


def run(args, folder, processes):
    path = lambda *parts: os.path.join(folder, *parts)
    catalogue = {"activities": [{"activity_id": "spring-2027"}],
                 "gifts": [{"gift_id": GIFT, "game_id": "landlords", "title": "A lion's lamp", "stock": args.stock}]}
    with open(path("catalogue.json"), "w") as out:
        json.dump(catalogue, out)
    # A port of each one's own address, since the file of homes names them before they run.
    claims = {dc: f"127.0.{at + 1}.1:{free_port(f'127.0.{at + 1}.1')}" for at, dc in enumerate(DATACENTERS)}
    with open(path("homes.toml"), "w") as out:
        out.write("epoch = 1\n" + "".join(f'[[home]]\nname = "{dc}"\nurl = "http://{at}"\n' for dc, at in claims.items()))
    for at, dc in enumerate(DATACENTERS):
        process, _ = start(args.program, "upstream", "claim", "--listen", claims[dc], "--data", path(dc), "--catalogue", path("catalogue.json"),
                           "--bucket", f"{at}/{len(DATACENTERS)}", "--homes", path("homes.toml"), "--home", dc, "--limit", "1024", "--log", "error")
        processes.append(process)
    edges = []
    for dc in DATACENTERS:
        with open(path(f"{dc}.toml"), "w") as out:
            out.write(configuration(dc, claims))
        process, ready = start(args.program, "run", "--log", "error", "-c", path(f"{dc}.toml"))
        processes.append(process)
        edges.append(ready["http"]["public"][0])

    users = [f"u{n}" for n in range(args.claimants)]
    users += random.sample(users, args.claimants // 10)
    random.shuffle(users)
    out, began = Queue(), time.monotonic()
    crowds = [Process(target=crowd, args=(edge, users[at::len(edges)], args.clients // len(edges), out)) for at, edge in enumerate(edges)]
    for one in crowds:
        one.start()
    told, latencies = [], []
    for _ in crowds:
        some, times = out.get()
        told += some
        latencies += times
    took = time.monotonic() - began
    for one in crowds:
        one.join()

    stores = {dc: orders(at) for dc, at in claims.items()}
    have = collections.Counter(order["claim"]["user_id"] for all in stores.values() for order in all)
    answers = collections.Counter(status for _, status in told)
    promised = {user for user, status in told if status in (200, 202)}
    refused = {user for user, status in told if status == 410}
    latencies.sort()
    at = lambda share: 1000 * latencies[min(len(latencies) - 1, int(share * len(latencies)))]
    print(f"{len(users)} claims of {args.claimants} users in {took:.1f} s ({len(told) / took:.0f}/s), answers {dict(sorted(answers.items()))}")
    print(f"latency p50 {at(.5):.1f} ms, p99 {at(.99):.1f} ms, worst {at(1):.0f} ms, {args.clients} connections")
    print("orders:", ", ".join(f"{dc} {len(all)}" for dc, all in stores.items()), f"together {sum(map(len, stores.values()))} of {args.stock}")
    faults = {
        "orders beyond or below the stock": abs(sum(have.values()) - min(args.stock, args.claimants)),
        "users with two orders": sum(n > 1 for n in have.values()),
        "promised and without an order": len(promised - have.keys()),
        "orders that nobody was told of": len(have.keys() - promised),
        "202 more than orders": max(0, answers[202] - sum(have.values())),
        "refused and with an order": len(refused & have.keys()),
        "without an answer": args.claimants - len(promised | refused),
    }
    for name, count in faults.items():
        print(f"{count:7} {name}")
    return 1 if any(faults.values()) else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/springtide")
    parser.add_argument("--stock", type=int, default=30_000)
    parser.add_argument("--claimants", type=int, default=200_000)
    parser.add_argument("--clients", type=int, default=192, help="connections, over all edges")
    parser.add_argument("--folder", default=".")
    args = parser.parse_args()
    processes = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        try:
            code = run(args, folder, processes)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait()
    sys.exit(code)


main()
