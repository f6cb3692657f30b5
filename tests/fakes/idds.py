"""A small iDDS: points of one workload over http, to the contract of idds-server 2.6.21."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote


class FakeIdds:
    """What the service knows, and what it was asked.

    Args:
        generate: called after each change with all (parameters, loss); the new points.
        workload: the only one there is.
    """

    def __init__(
        self, generate: Callable[[list[tuple[Any, float | None]]], list[Any]], workload: str = "77"
    ) -> None:
        self.generate, self.workload = generate, workload
        self.points: list[tuple[Any, float | None]] = []
        self.requests: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        #: status codes to answer with before anything else; 0: no answer at all
        self.failures: list[int] = []
        self._lock = threading.Lock()
        self._grow()
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.answer(self)

            do_PUT = do_GET

            def log_message(self, format: str, *arguments: Any) -> None:
                """Nothing of it is printed."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def host(self) -> str:
        """As users write it."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/idds"

    def _grow(self) -> None:
        self.points += [(point, None) for point in self.generate(list(self.points))]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        with self._lock:
            self.requests.append((handler.command, handler.path))
            self.headers.append(dict(handler.headers))
            status = self.failures.pop(0) if self.failures else 200
            if status == 0:
                handler.connection.close()
                return
            content: Any = None
            if status == 200:
                status, content = self._respond(handler.command, handler.path)
        body = b"" if content is None else json.dumps(content).encode()
        handler.send_response(status)
        if content is None:
            handler.send_header("ExceptionClass", "CoreException")
            handler.send_header("ExceptionMessage", "as the test wants it")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def _respond(self, method: str, path: str) -> tuple[int, Any]:
        parts = [unquote(part) for part in path.strip("/").split("/")]
        if parts[:2] != ["idds", "hpo"] or parts[2:4] != [self.workload, "null"]:
            return 404, None
        if method == "PUT":
            number, loss = int(parts[4]), float(parts[5])
            self.points[number] = (self.points[number][0], loss)
            self._grow()
            return 200, {"status": 0, "message": "update successfully"}
        wanted, status, limit = parts[4:7]
        assert (wanted, limit) == ("null", "null")
        return 200, [
            {"id": str(i), "parameters": point, "loss": loss}
            for i, (point, loss) in enumerate(self.points)
            if status == "null" or (status == "New") == (loss is None)
        ]

    def told(self) -> list[str]:
        """The ids for which a loss came, as often as it came."""
        return [path.split("/")[5] for method, path in self.requests if method == "PUT"]

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def idds(
    generate: Callable[[list[tuple[Any, float | None]]], list[Any]], **options: Any
) -> Iterator[FakeIdds]:
    """A service for the time of one test."""
    service = FakeIdds(generate, **options)
    try:
        yield service
    finally:
        service.close()
