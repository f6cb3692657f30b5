"""An HTTP server on a free loopback port that can be told to misbehave."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """One file and how it is served.

    Attributes:
        data: the content.
        drops: before each further answer has been sent in full, the connection is cut after so
            many bytes of it.
        fails: further requests that are answered with this status.
        etag, ranges: whether the server says and does what lets a download be resumed.
        on_get: called before each GET.
    """

    data: bytes
    drops: list[int] = field(default_factory=list)
    fails: list[int] = field(default_factory=list)
    etag: bool = True
    modified: float | None = None
    ranges: bool = True
    length: bool = True
    on_get: Callable[[Served], None] = lambda served: None


@dataclass
class Server:
    """The files by path, and the requests as (method, path, Range)."""

    files: dict[str, Served] = field(default_factory=dict)
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, path: str, data: bytes, **how: object) -> Served:
        self.files[path] = Served(data, **how)  # type: ignore[arg-type]
        return self.files[path]

    def gets(self, path: str) -> list[str | None]:
        """The Range of each GET of a file."""
        return [r for method, p, r in self.requests if method == "GET" and p == path]


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: object) -> None:
            return None

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = self.path.partition("?")[0]
            asked = self.headers.get("Range")
            with server.lock:
                server.requests.append((self.command, path, asked))
                served = server.files.get(path)
                status = served.fails.pop(0) if served is not None and served.fails else 0
            if served is None or status:
                self.send_response(status or 404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if body:
                served.on_get(served)
            data, start = served.data, 0
            if asked and served.ranges:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
            rest = data[start:]
            self.send_response(206 if asked and served.ranges else 200)
            if served.length:
                self.send_header("Content-Length", str(len(rest)))
            else:
                self.send_header("Connection", "close")
                self.close_connection = True
            if asked and served.ranges:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            if served.etag:
                self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()[:8]}"')
            if served.modified is not None:
                self.send_header("Last-Modified", formatdate(served.modified, usegmt=True))
            self.end_headers()
            if not body:
                return
            with server.lock:
                cut = served.drops.pop(0) if served.drops else None
            self.wfile.write(rest if cut is None else rest[:cut])
            self.wfile.flush()
            if cut is not None:
                # What has not been read when a connection breaks is lost to its reader.
                time.sleep(0.2)
                self.close_connection = True

    return Handler


@contextmanager
def serving() -> Iterator[Server]:
    """A server for the time of a with block."""
    server = Server()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), _handler(server))
    httpd.daemon_threads = True
    server.url = f"http://127.0.0.1:{httpd.server_address[1]}"
    thread = threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()
