"""An HTTP/1.1 origin: `/` is the browser's page, `/events` a stream of events, `/echo` gives back what it gets, `/result`
prints it. Prints its port once it serves."""

import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

with open(sys.argv[1], "rb") as file:
    PAGE = file.read()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self):
        if self.path != "/events":
            return self.answer("text/html; charset=utf-8", PAGE)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for n in range(3):
            event = b"data: event-%d\n\n" % n
            self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
            self.wfile.flush()
            time.sleep(0.05)
        self.wfile.write(b"0\r\n\r\n")

    do_HEAD = do_GET

    def do_POST(self):
        body = self.body()
        if self.path == "/result":
            print(body.decode(), flush=True)
        self.answer("application/octet-stream", body)

    do_PUT = do_POST


ThreadingHTTPServer.request_queue_size = 1024
ThreadingHTTPServer.handle_error = lambda *_: None  # clients that go are no news
server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
