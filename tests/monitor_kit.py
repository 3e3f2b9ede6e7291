"""A monitor: an HTTP server on loopback that notes each POST."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, NamedTuple


class Post(NamedTuple):
    """What came to the monitor."""

    path: str
    body: str
    agent: str


class Monitor(BaseHTTPRequestHandler):
    """Notes each POST in `got`, and answers it with `status`."""

    got: ClassVar[list[Post]] = []
    status: ClassVar[int] = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.got.append(Post(self.path, body, str(self.headers["User-Agent"])))
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def listening() -> Iterator[str]:
    """Have the monitor listen, with nothing noted yet; yield its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Monitor)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Monitor.got.clear()
    Monitor.status = 200
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/secret-uuid"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
