#!/usr/bin/env python3
"""What a claim costs as the orders grow: claims a second, p50, p99 and octets an order at 10^4, 10^5, ... of them.

    benches/redpacket/growth.py --program target/release/springtide --orders 10000,100000,1000000,10000000 --folder .

Each store is filled with 256 clients up to each number, and then measured with 64 that wait for every answer. Nothing is delivered,
so every order stays in the queue. Prints a line for each number, and draws p50 and p99 with --plot FILE.svg.
"""

import argparse
import contextlib
import json
import os
import shutil
import tempfile
import time

from run import Claims, OnPostgres, OnRedb, ending


def size(racer, folder):
    """Octets on disk: for PostgreSQL tables and indexes alone, since its log is as long as it is told to be."""
    cluster = getattr(racer, "cluster", None)
    if cluster:
        out = cluster.sql("SELECT 'octets ' || sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = "
                          "c.relnamespace WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')", "claims")
        return int(out.split("octets ")[1].split()[0])
    return sum(os.stat(os.path.join(where, name)).st_blocks * 512 for where, _, names in os.walk(folder) for name in names)


def plot(path, rows):
    """p50 and p99 over the orders, both logarithmic, as plain SVG."""
    from math import log10
    width, height, left, below = 640, 360, 60, 40
    orders, times = [r[1] for r in rows], [t for r in rows for t in r[3:5]]
    low, high = log10(min(times)) - 0.1, log10(max(times)) + 0.1
    first, last = log10(min(orders)), log10(max(orders))
    x = lambda n: left + (width - left - 130) * (log10(n) - first) / max(last - first, 1e-9)
    y = lambda ms: height - below - (height - below - 20) * (log10(ms) - low) / (high - low)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{width}" height="{height}" fill="white"/>']
    for ms in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000):
        if low <= log10(ms) <= high:
            out.append(f'<path d="M{left} {y(ms):.1f}H{width - 130}" stroke="#ddd"/><text x="{left - 6}" y="{y(ms) + 4:.1f}" '
                       f'text-anchor="end">{ms:g} ms</text>')
    for power in range(round(first), round(last) + 1):
        out.append(f'<text x="{x(10 ** power):.1f}" y="{height - below + 18}" text-anchor="middle">10<tspan dy="-5" font-size="9">{power}'
                   '</tspan></text>')
    out.append(f'<text x="{(left + width - 130) / 2:.0f}" y="{height - 6}" text-anchor="middle">orders in the store</text>')
    for name, colour in zip(dict.fromkeys(r[0] for r in rows), ("#c0392b", "#2471a3", "#1e8449")):
        own = [r for r in rows if r[0] == name]
        for at, dash, label in ((3, "", "p50"), (4, "5 4", "p99")):
            line = " ".join(f"{x(r[1]):.1f},{y(r[at]):.1f}" for r in own)
            out.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"/>')
            out.append(f'<text x="{width - 124}" y="{y(own[-1][at]) + 4:.1f}" fill="{colour}">{name.removeprefix("claims on ")} {label}</text>')
    with open(path, "w") as file:
        file.write("\n".join([*out, "</svg>"]) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/springtide")
    parser.add_argument("--orders", default="10000,100000,1000000")
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--plot")
    parser.add_argument("--only", help="words of the names of those to run, with commas between")
    args = parser.parse_args()
    # More than are asked for; the built-in campaign has a million.
    with tempfile.NamedTemporaryFile("w", suffix=".json") as campaign:
        gift = {"gift_id": "gold-ingots", "game_id": "harvest-home", "title": "188 Gold Ingots", "stock": 10**12}
        json.dump({"activities": [{"activity_id": "spring"}], "gifts": [gift]}, campaign)
        campaign.flush()
        Claims.more = ["--catalogue", campaign.name]
        rows = grow(args)
    if args.plot:
        plot(args.plot, rows)


def grow(args):
    rows = []
    print(f"{'':24} {'orders':>10} {'a second':>9} {'p50 ms':>8} {'p99 ms':>8} {'octets an order':>16} {'filled in s':>12}", flush=True)
    for kind in (OnRedb, OnPostgres):
        if (args.only and not any(word in kind.name for word in args.only.split(","))) or any(not shutil.which(t) for t in kind.tools):
            continue
        with contextlib.ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-"))
            racer = kind(folder, os.path.abspath(args.program))
            stack.enter_context(ending(racer.process))
            began = time.monotonic()
            for goal in map(int, args.orders.split(",")):
                while (have := racer.accepted()) < goal:
                    # As long as it will take, rather too short than too long; a few clients where little is left.
                    left = goal - have
                    racer.measure(max(1, min(50, int(left / 40_000))), 256 if left > 50_000 else 8)
                filled = time.monotonic() - began
                rate, p50, p99 = racer.measure(args.seconds)
                rows.append((racer.name, have, rate, p50, p99))
                print(f"{racer.name:24} {have:>10} {rate:>9.0f} {p50:>8.2f} {p99:>8.2f} {size(racer, folder) / racer.accepted():>16.0f} {filled:>12.0f}",
                      flush=True)
    return rows


if __name__ == "__main__":
    main()
