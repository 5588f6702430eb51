#!/usr/bin/env python3
"""Durable claims a second, beside what else makes a write durable on the same disk, in one run.

    benches/redpacket/run.py --program target/release/springtide --seconds 10 --rounds 3 --folder .

In turn, each with 64 clients that wait for every answer: claims on redb and on PostgreSQL (wrk over HTTP, each for a user of its
own), SET in a Redis that syncs every write (redis-benchmark, appendfsync always), and a simple insert into the same PostgreSQL
(pgbench). All of it on loopback, in a folder below --folder that is removed at the end; what is not installed is left out and
named. Prints a table of answers a second, p50 and p99, with the median of all rounds.
"""

import argparse
import contextlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time

CLIENTS = 64
HERE = os.path.dirname(os.path.abspath(__file__))


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def run(*command, **how):
    done = subprocess.run(command, capture_output=True, text=True, **how)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


@contextlib.contextmanager
def ending(process):
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(probe, what, seconds=30):
    end = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > end:
            raise RuntimeError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def accepts(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


class Redis:
    """SET, each synced."""

    name, tools = "Redis, SET, appendfsync always", ["redis-server", "redis-benchmark"]

    def __init__(self, folder, _):
        self.port = free_port()
        self.process = subprocess.Popen(
            ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", folder, "--save", "", "--appendonly", "yes",
             "--appendfsync", "always"], stdout=subprocess.DEVNULL)
        wait_for(lambda: accepts(self.port), "Redis")

    def measure(self, seconds):
        count = 20_000
        while True:
            began = time.monotonic()
            out = run("redis-benchmark", "-p", str(self.port), "-t", "set", "-c", str(CLIENTS), "-n", str(count), "-r", "100000000", "-d",
                      "300", "--csv")
            took = time.monotonic() - began
            if took > seconds / 2:
                # "test","rps","avg_latency_ms","min","p50","p95","p99","max"
                row = [part.strip('"') for part in out.strip().splitlines()[-1].split(",")]
                return float(row[1]), float(row[4]), float(row[6])
            count = int(count * min(10, 1.1 * seconds / max(took, 0.1)))


class Claims:
    """Claims over HTTP. What was answered with 202 is counted, nothing else."""

    tools = ["wrk"]
    # What every claim process is told beside its store.
    more = []

    def __init__(self, folder, program, *store):
        command = [program, "upstream", "claim", "--limit", "1024", "--log", "warn", *self.more, *store]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=open(os.path.join(folder, "log"), "w"))
        self.url = "http://" + json.loads(self.process.stdout.readline())["listen"]
        self.first = 0

    def accepted(self):
        out = run("curl", "-sS", f"{self.url}/internal/stats")
        stats = json.loads(out)
        return sum(stats[state] for state in ("accepted", "delivering", "retry_wait", "delivered", "dead"))

    def measure(self, seconds, clients=CLIENTS):
        self.first += 100_000_000
        before = self.accepted()
        out = run("wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--latency", "-s", os.path.join(HERE, "claims.lua"), self.url, "--",
                  str(self.first))
        took = float(re.search(r"requests in ([\d.]+)s", out)[1])
        return (self.accepted() - before) / took, latency(out, "50%"), latency(out, "99%")


def latency(out, share):
    number, unit = re.search(rf"{share}\s+([\d.]+)(us|ms|s)", out).groups()
    return float(number) * {"us": 1e-3, "ms": 1, "s": 1e3}[unit]


class OnRedb(Claims):
    name = "claims on redb"

    def __init__(self, folder, program):
        super().__init__(folder, program, "--data", os.path.join(folder, "claims"))


def postgres_bin():
    for version in sorted(os.listdir("/usr/lib/postgresql") if os.path.isdir("/usr/lib/postgresql") else [], reverse=True):
        path = f"/usr/lib/postgresql/{version}/bin"
        if os.path.exists(f"{path}/initdb"):
            return path
    return None


class Cluster:
    """A PostgreSQL of our own, as it comes: every commit is synced."""

    def __init__(self, folder):
        self.bin, self.port, self.folder = postgres_bin(), free_port(), folder
        # It refuses to run as root.
        self.become = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self.become:
            shutil.chown(folder, "postgres")
            os.chmod(folder, 0o755)
        data = os.path.join(folder, "data")
        run(*self.become, f"{self.bin}/initdb", "-D", data, "-U", "tide", "--auth=trust", "--no-locale", "-E", "UTF8", cwd="/")
        self.process = subprocess.Popen(
            [*self.become, f"{self.bin}/postgres", "-D", data, "-p", str(self.port), "-k", folder, "-c", "listen_addresses=127.0.0.1", "-c",
             "max_connections=200"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        self.where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", "tide"]
        wait_for(lambda: subprocess.run([f"{self.bin}/pg_isready", *self.where], capture_output=True).returncode == 0, "PostgreSQL")

    def sql(self, text, database="postgres"):
        return run("psql", *self.where, "-d", database, "-v", "ON_ERROR_STOP=1", "-c", text)


class Pgbench:
    """A row with a key of its own for each commit."""

    name, tools = "pgbench, simple insert", ["pgbench", "psql"]

    def __init__(self, folder, _):
        self.cluster = Cluster(folder)
        self.process = self.cluster.process
        self.cluster.sql("CREATE TABLE simple (id bigserial PRIMARY KEY, body text NOT NULL)")
        self.script = os.path.join(folder, "insert.sql")
        with open(self.script, "w") as file:
            file.write("INSERT INTO simple (body) VALUES (repeat('x', 300));\n")

    def measure(self, seconds):
        log = os.path.join(self.cluster.folder, "latency")
        out = run("pgbench", *self.cluster.where, "-n", "-c", str(CLIENTS), "-j", "1", "-T", str(seconds), "-f", self.script, "-M",
                  "prepared", "-l", f"--log-prefix={log}", "postgres")
        taken = []
        for name in os.listdir(self.cluster.folder):
            if name.startswith("latency"):
                path = os.path.join(self.cluster.folder, name)
                with open(path) as file:
                    taken += [int(line.split()[2]) / 1000 for line in file]
                os.unlink(path)
        taken.sort()
        return float(re.search(r"tps = ([\d.]+)", out)[1]), taken[len(taken) // 2], taken[int(len(taken) * 0.99)]


class OnPostgres(Claims):
    name, tools = "claims on PostgreSQL", ["wrk", "psql"]

    def __init__(self, folder, program):
        self.cluster = Cluster(folder)
        self.cluster.sql("CREATE DATABASE claims")
        url = f"postgres://tide@127.0.0.1:{self.cluster.port}/claims"
        super().__init__(folder, program, "--store", "postgres", "--postgres", url)
        self.claims, self.process = self.process, Both(self.process, self.cluster.process)


class Both:
    """Two processes that end together, the later one first."""

    def __init__(self, first, second):
        self.all = [first, second]

    def terminate(self):
        for process in self.all:
            process.terminate()
            process.wait(20)

    def wait(self, _=None):
        for process in self.all:
            process.wait()

    def kill(self):
        for process in self.all:
            process.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/springtide")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=".")
    parser.add_argument("--only", help="words of the names of those to run, with commas between")
    args = parser.parse_args()
    program = os.path.abspath(args.program)
    print(f"{'':32} {'a second':>12} {'p50 ms':>8} {'p99 ms':>8}   each round")
    with contextlib.ExitStack() as stack:
        racers = []
        for kind in (OnRedb, Redis, OnPostgres, Pgbench):
            wanted = not args.only or any(word in kind.name for word in args.only.split(","))
            missing = [tool for tool in kind.tools if not shutil.which(tool)]
            if not wanted or missing:
                if missing:
                    print(f"{kind.name:32} left out: no {', '.join(missing)}")
                continue
            folder = stack.enter_context(tempfile.TemporaryDirectory(dir=args.folder, prefix="bench-"))
            racer = kind(folder, program)
            stack.enter_context(ending(racer.process))
            racers.append((racer, []))
        for _ in range(args.rounds):
            for racer, rounds in racers:
                rounds.append(racer.measure(args.seconds))
        for racer, rounds in racers:
            rate, p50, p99 = (statistics.median(one[at] for one in rounds) for at in range(3))
            each = " ".join(f"{one[0]:.0f}" for one in rounds)
            print(f"{racer.name:32} {rate:>12.0f} {p50:>8.2f} {p99:>8.2f}   {each}", flush=True)


if __name__ == "__main__":
    main()
