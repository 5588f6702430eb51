#!/usr/bin/env python3
"""A reload every second and an upgrade every ten, under load: what clients notice.

    benches/operations/run.py --program target/release/springtide --seconds 120 --clients 8 --secure 4 --http2 2 --tunnels 8 --streams 8

Starts an origin and a node, asks without a pause (connections that are kept, and one for each request; over TLS, resumed and
not; over HTTP/2 with curl, many requests at a time), keeps WebSockets and endless responses open across everything, and
prints a line every ten seconds. Ends with 1 where anything failed. Needs curl and openssl beside the standard library; the
generator shares the machine, so latencies are those of a busy one.
"""

import argparse
import asyncio
import json
import os
import signal
import ssl
import subprocess
import sys
import tempfile
import time

HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def origin(reader, writer):
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"upgrade: websocket" in head.lower():
                writer.write(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
                while data := await reader.read(4096):
                    writer.write(data)
                    await writer.drain()
                return
            if head.startswith(b"GET /stream"):
                writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
                while True:
                    writer.write(b"5\r\ntick\n\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.1)
            writer.write(HEAD)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


class Count:
    def __init__(self):
        self.asked = self.failed = self.reloads = self.upgrades = self.refused = 0
        self.echoes = self.ticks = 0
        self.latencies = []
        self.errors = []

    def fail(self, what):
        self.failed += 1
        if len(self.errors) < 20:
            self.errors.append(what)


async def once(reader, writer, fields):
    writer.write(b"GET / HTTP/1.1\r\nhost: a.test\r\n" + fields + b"\r\n")
    await writer.drain()
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
    if not head.startswith(b"HTTP/1.1 200"):
        raise RuntimeError(head.split(b"\r\n")[0].decode())
    await asyncio.wait_for(reader.readexactly(2), 10)
    return b"connection: close" not in head.lower()


async def client(port, count, keeps, stop, tls=None):
    open_to, named = None, {"ssl": tls, "server_hostname": "a.test"} if tls else {}
    while not stop.is_set():
        began = time.monotonic()
        try:
            reader, writer = open_to or await asyncio.open_connection("127.0.0.1", port, **named)
            goes_on = await once(reader, writer, b"" if keeps else b"connection: close\r\n")
            open_to = (reader, writer) if goes_on else None
            if not goes_on:
                writer.close()
        except Exception as error:  # whatever it is, a client has noticed
            count.fail(f"{'TLS ' if tls else ''}{'kept' if keeps else 'fresh'}: {error!r}")
            open_to = None
        count.asked += 1
        count.latencies.append(time.monotonic() - began)


async def http2(port, count, folder, stop):
    """curl, a thousand requests at a time over one connection: who is told to go comes again by itself, as browsers do."""
    urls, batch = f"https://a.test:{port}/?[1-1000]", 1000
    while not stop.is_set():
        curl = await asyncio.create_subprocess_exec(
            "curl", "-sS", "--http2", "--cacert", os.path.join(folder, "cert.pem"), "--resolve", f"a.test:{port}:127.0.0.1",
            "-Z", "--parallel-max", "16", "-m", "60", "-o", "/dev/null", "-w", "%{http_version} %{http_code}\n", urls,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, error = await curl.communicate()
        good = out.count(b"2 200\n")
        count.asked += batch
        for _ in range(batch - good):
            count.fail(f"HTTP/2: {error.decode().strip()[:200]} {set(out.split(bytes([10])))}")


async def tunnel(port, count, stop):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /ws HTTP/1.1\r\nhost: a.test\r\nconnection: upgrade\r\nupgrade: websocket\r\n"
                 b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    await reader.readuntil(b"\r\n\r\n")
    while not stop.is_set():
        try:
            writer.write(b"ping")
            await asyncio.wait_for(reader.readexactly(4), 10)
            count.echoes += 1
        except Exception as error:
            return count.fail(f"tunnel: {error!r}")
        await asyncio.sleep(0.1)


async def stream(port, count, stop):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /stream HTTP/1.1\r\nhost: a.test\r\n\r\n")
    while not stop.is_set():
        data = await asyncio.wait_for(reader.read(4096), 10)
        if not data:
            return count.fail("stream: it ended")
        count.ticks += data.count(b"tick")


def ask(program, command, admin):
    return subprocess.run([program, command, "--admin", admin], capture_output=True, text=True)


def state(admin):
    out = subprocess.run(["curl", "-sS", "-m", "5", f"http://{admin}/v1/state"], capture_output=True, text=True)
    return json.loads(out.stdout)


async def operate(program, admin, count, seconds, config, text):
    loop, began = asyncio.get_running_loop(), time.monotonic()
    for second in range(1, seconds + 1):
        await asyncio.sleep(max(0, began + second - time.monotonic()))
        with open(config, "w") as file:  # another weight each time, so that a reload changes something
            file.write(text.replace("weight = 1\n", f"weight = {1 + second % 9}\n"))
        command = "upgrade" if second % 10 == 0 else "reload"
        done = await loop.run_in_executor(None, ask, program, command, admin)
        if done.returncode:
            count.refused += 1
            count.errors.append(f"{command} at {second} s: {(done.stdout + done.stderr).strip()}")
        elif command == "upgrade":
            count.upgrades += 1
        else:
            count.reloads += 1
        if second % 10 == 0:
            await report(second, count, admin, loop)


async def report(second, count, admin, loop):
    told = await loop.run_in_executor(None, state, admin)
    latencies = sorted(count.latencies) or [0]
    count.latencies = []
    at = lambda share: 1000 * latencies[min(len(latencies) - 1, int(share * len(latencies)))]
    node = told["node"]
    print(f"{second:>4} {count.asked:>9} {count.failed:>6} {at(.5):>8.2f} {at(.99):>8.2f} {at(1):>8.1f} {count.reloads:>7} "
          f"{count.upgrades:>8} {count.refused:>7} {count.echoes:>7} {count.ticks:>7} {told['generation']:>10} "
          f"{node['pid']:>8} {len(node['old_processes']):>4}", flush=True)


async def run(args):
    server = await asyncio.start_server(origin, "127.0.0.1", 0)
    backend = server.sockets[0].getsockname()[1]
    count, stop = Count(), asyncio.Event()
    with tempfile.TemporaryDirectory() as folder:
        config = os.path.join(folder, "node.toml")
        text = (f'[node]\nname = "n1"\nworkers = {args.workers}\nstate_dir = "state"\nold_processes = 64\n\n'
                f'[admin]\nlisten = "127.0.0.1:0"\n\n[[datacenter]]\nname = "here"\nweight = 1\n'
                f'addresses = ["192.0.2.1"]\n\n[[service]]\nname = "web"\nprobe = {{ tcp = true }}\n'
                f'backends.here = ["127.0.0.1:{backend}"]\n\n[[listener]]\nname = "public"\n'
                f'listen = ["127.0.0.1:0"]\n\n[[listener]]\nname = "secure"\nlisten = ["127.0.0.1:0"]\n'
                f'tls = {{ certs = ["cert.pem"], keys = ["key.pem"] }}\n\n[[route]]\nmatch = {{ path_prefix = "/" }}\nservice = "web"\n')
        with open(config, "w") as file:
            file.write(text)
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                        "key.pem", "-out", "cert.pem", "-days", "60", "-subj", "/CN=a.test", "-addext",
                        "subjectAltName=DNS:a.test"], cwd=folder, check=True, capture_output=True)
        tls = ssl.create_default_context(cafile=os.path.join(folder, "cert.pem"))
        log = open(os.path.join(folder, "log"), "w")
        node = subprocess.Popen([args.program, "run", "-c", config], stdout=subprocess.PIPE, stderr=log)
        ready = json.loads(node.stdout.readline())
        admin = ready["admin"]
        port, secure = (int(ready["http"][name][0].rsplit(":", 1)[1]) for name in ("public", "secure"))
        last = node.pid
        try:
            work = [client(port, count, n % 4 != 0, stop) for n in range(args.clients)]
            work += [client(secure, count, n % 2 == 0, stop, tls) for n in range(args.secure)]
            work += [http2(secure, count, folder, stop) for _ in range(args.http2)]
            work += [tunnel(port, count, stop) for _ in range(args.tunnels)]
            work += [stream(port, count, stop) for _ in range(args.streams)]
            tasks = [asyncio.create_task(w) for w in work]
            print("   s  requests failed  p50(ms)  p99(ms)  max(ms) reloads upgrades refused  echoes   ticks generation"
                  "      pid  old")
            await operate(args.program, admin, count, args.seconds, config, text)
            last = state(admin)["node"]["pid"]
            stop.set()
            await asyncio.wait(tasks, timeout=20)
        finally:
            everybody = {node.pid, last, *state(admin)["node"]["old_processes"]}
            for pid in everybody:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            node.wait()
    print("\n".join(count.errors))
    print(f"{count.asked} requests, {count.failed} failed; {count.reloads} reloads, {count.upgrades} upgrades, "
          f"{count.refused} refused; {args.tunnels} WebSockets and {args.streams} streams alive to the end"
          if not count.failed else f"{count.failed} failures")
    return 1 if count.failed or count.refused else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/springtide")
    parser.add_argument("--seconds", type=int, default=120)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=16, help="one in four opens a connection for each request")
    parser.add_argument("--secure", type=int, default=0, help="the same over TLS; every other one handshakes for each request")
    parser.add_argument("--http2", type=int, default=0, help="curls with sixteen requests at a time on one connection")
    parser.add_argument("--tunnels", type=int, default=8)
    parser.add_argument("--streams", type=int, default=8)
    sys.exit(asyncio.run(run(parser.parse_args())))


main()
