#!/usr/bin/env python3
"""The disk of the orders fills up under load, and is cleared again: what was promised is there all the same.

    benches/redpacket/full_disk.py --program target/release/springtide --store postgres --rounds 3

Mounts a small file system in a mount namespace of its own (so it needs root), puts the store there, claims all the time, and in
every round fills the disk to the last byte for a few seconds and makes room again. A PostgreSQL that ends for want of room is
started again, as its supervisor would. Afterwards it compares all orders with what everybody was told, and, by `springtide
reconcile`, with what the game has applied. Standard library only.
"""

import argparse
import asyncio
import collections
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request

SIZE_MIB = {"redb": 16, "postgres": 192}
APART = "SPRINGTIDE_FULL_DISK_APART"


class Supervised:
    """A PostgreSQL on the disk, started again whenever it ends."""

    def __init__(self, disk, user):
        versions = sorted(os.listdir("/usr/lib/postgresql"))
        self.bin, self.disk, self.data = f"/usr/lib/postgresql/{versions[-1]}/bin", disk, os.path.join(disk, "data")
        self.become, self.starts, self.process = ["runuser", "-u", user, "--"], 0, None
        self.run("initdb", "-D", self.data, "-U", "tide", "-A", "trust", "-E", "UTF8", "--locale=C")
        self.url = f"host={disk} port=5432 user=tide dbname=postgres"

    def run(self, program, *args):
        subprocess.run([*self.become, f"{self.bin}/{program}", *args], check=True, cwd="/", stdout=subprocess.DEVNULL)

    def tend(self):
        if self.process is None or self.process.poll() is not None:
            pid = os.path.join(self.data, "postmaster.pid")
            if os.path.exists(pid):
                os.remove(pid)
            self.starts += 1
            self.process = subprocess.Popen(
                [*self.become, f"{self.bin}/postgres", "-D", self.data, "-k", self.disk, "-c", "listen_addresses=", "-c", "max_wal_size=64MB",
                 "-c", "min_wal_size=32MB", "-c", "log_min_messages=fatal"], cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    async def keep(self):
        while True:
            self.tend()
            await asyncio.sleep(0.2)

    def stop(self):
        subprocess.run([*self.become, f"{self.bin}/pg_ctl", "-D", self.data, "-m", "immediate", "stop"], cwd="/", stdout=subprocess.DEVNULL)


def start(*command):
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    return process, json.loads(process.stdout.readline())["listen"]


async def client(address, users, told, counts, state):
    host, port = address.rsplit(":", 1)
    body = json.dumps({"packet_id": "p", "gift_id": "gold-ingots", "zone_id": "hh-1", "role_id": "r"}).encode()
    reader = writer = None
    while not state["over"]:
        user = next(users)
        if writer is None:
            reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"POST /v1/claims HTTP/1.1\r\nhost: c\r\nx-user-id: u%d\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s"
                     % (user, len(body), body))
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]))
        status = int(head[9:12])
        told[f"u{user}"] = status
        counts[state["phase"]][status] += 1
        await asyncio.sleep(0.02 if status < 500 else 0.05)


def fill(path):
    """To the last byte; what others free meanwhile is taken too."""
    with open(path, "ab", buffering=0) as ballast:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while ballast.write(b"\0" * size) == size:
                    pass
            except OSError:
                pass


async def run(args, disk, elsewhere):
    processes, database, keeper = [], None, None
    if args.store == "postgres":
        shutil.chown(disk, args.user)
        database = Supervised(disk, args.user)
        database.tend()
        keeper = asyncio.create_task(database.keep())
        store = ["--store", "postgres", "--postgres", database.url]
    else:
        store = ["--data", os.path.join(disk, "claims")]
    game_data, ballast = os.path.join(elsewhere, "game"), os.path.join(disk, "ballast")
    counts, told = collections.defaultdict(collections.Counter), {}
    state = {"phase": "room", "over": False}
    try:
        process, game = start(args.program, "upstream", "game", "--data", game_data, "--log", "error")
        processes.append(process)
        process, claims = start(args.program, "upstream", "claim", *store, "--game", f"http://{game}", "--rate", "2000 rps", "--log", "off")
        processes.append(process)
        users = iter(range(10**9))
        crowd = [asyncio.create_task(client(claims, users, told, counts, state)) for _ in range(args.clients)]
        for _ in range(args.rounds):
            await asyncio.sleep(args.seconds)
            state["phase"] = "full"
            end = time.monotonic() + args.seconds
            while time.monotonic() < end:
                await asyncio.to_thread(fill, ballast)
                await asyncio.sleep(0.05)
            os.remove(ballast)
            state["phase"] = "room again"
        await asyncio.sleep(args.seconds)
        state["over"] = True
        await asyncio.gather(*crowd)
        promised = {user for user, status in told.items() if status in (200, 202)}
        end, open_orders = time.monotonic() + 120, -1
        while open_orders and time.monotonic() < end:
            with urllib.request.urlopen(f"http://{claims}/internal/stats") as answer:
                stats = json.load(answer)
            open_orders = stats["accepted"] + stats["delivering"] + stats["retry_wait"]
            await asyncio.sleep(0.2)
        have, after = set(), ""
        while True:
            with urllib.request.urlopen(f"http://{claims}/internal/orders?limit=500{after}") as answer:
                trails = json.load(answer)["trails"]
            if not trails:
                break
            have |= {trail["order"]["claim"]["user_id"] for trail in trails}
            after = "&after=" + trails[-1]["order"]["order_no"]
        issued = sum(stock["issued"] for _, stock in stats["stock"])
    finally:
        for process in processes:
            process.terminate()
            process.wait()
    orders = ["--postgres", database.url] if database else ["--data", os.path.join(disk, "claims")]
    report = subprocess.run([args.program, "reconcile", *orders, "--game-data", game_data], capture_output=True, text=True)
    if keeper:
        keeper.cancel()
        database.stop()
    for phase, statuses in counts.items():
        print(f"{phase:12} {sum(statuses.values()):>7} claims  {dict(sorted(statuses.items()))}")
    if database:
        print(f"PostgreSQL was started {database.starts} times")
    faults = {"promised and not there": len(promised - have), "issued beside orders": abs(issued - len(have)),
              "not delivered after two minutes": open_orders, "reconcile's exit code": report.returncode,
              "rounds in which nothing was refused, so that nothing was shown": int(not any(s >= 500 for s in counts["full"]))}
    print(f"{len(promised)} promised, {len(have)} orders ({len(have - promised)} whose client was told of an error), {issued} issued")
    for name, count in faults.items():
        print(f"{count:>7}  {name}")
    if report.returncode:
        print(report.stdout, report.stderr)
    return 1 if any(faults.values()) else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/springtide")
    parser.add_argument("--store", choices=SIZE_MIB, default="redb")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="with and without room, in each round")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--user", default="postgres", help="as whom PostgreSQL runs")
    args = parser.parse_args()
    if APART not in os.environ:
        os.environ[APART] = "1"
        os.execvp("unshare", ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv])
    disk, elsewhere = tempfile.mkdtemp(prefix="full-"), tempfile.mkdtemp(prefix="game-")
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE_MIB[args.store]}m,mode=755", "tmpfs", disk], check=True)
    try:
        code = asyncio.run(run(args, disk, elsewhere))
    finally:
        subprocess.run(["umount", "-l", disk])
        os.rmdir(disk)
        shutil.rmtree(elsewhere)
    sys.exit(code)


main()
