"""pings: what a real HTTP server gets, and what is said where it doesn't take it."""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from bub_cron.gateway import pings
from bub_cron.states import FINAL


class Monitor(BaseHTTPRequestHandler):
    got: ClassVar[list[tuple[str, str, str]]] = []
    status = 200

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.got.append((self.path, body, self.headers["User-Agent"]))
        self.send_response(self.status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def monitor() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Monitor)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    Monitor.got.clear()
    Monitor.status = 200
    yield f"http://127.0.0.1:{server.server_address[1]}/secret-uuid"
    server.shutdown()
    thread.join()
    server.server_close()


def test_each_outcome_has_its_address() -> None:
    ends = {outcome: pings.address("https://hc-ping.com/uuid/?a=b", outcome) for outcome in FINAL}
    good = "https://hc-ping.com/uuid/?a=b"
    assert ends == {
        "delivered": good, "silent": good, "ran": good, "skipped": good,
        **dict.fromkeys(("failed", "undelivered", "missed", "rejected"), "https://hc-ping.com/uuid/fail?a=b"),
        "unknown": "https://hc-ping.com/uuid/log?a=b",
    }  # fmt: skip


def test_one_post_with_the_outcome_as_its_body(monitor: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        asyncio.run(pings.post(pings.address(monitor, "failed"), "failed: why, ü"))
    assert Monitor.got == [("/secret-uuid/fail", "failed: why, ü", "bub-cron")]
    assert "secret-uuid" not in caplog.text


def test_what_is_not_taken_is_told_without_the_address(monitor: str) -> None:
    Monitor.status = 503
    with pytest.raises(pings.PingRefusedError, match=r"^the ping was answered 503") as raised:
        asyncio.run(pings.post(monitor, "x"))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/secret", "https://127.0.0.1:1/secret", "http://no-such-host.invalid/secret"]
)
def test_no_server(url: str) -> None:
    with pytest.raises(pings.PingRefusedError, match=r"^the ping failed: ") as raised:
        asyncio.run(pings.post(url, "x"))
    assert "secret" not in str(raised.value)


def test_a_server_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pings, "SECONDS", 0.2)
    silent = socket.create_server(("127.0.0.1", 0))  # it takes the connection, and says nothing
    with silent as server, pytest.raises(pings.PingRefusedError, match=r"not answered within 0\.2 s"):
        asyncio.run(pings.post(f"http://127.0.0.1:{server.getsockname()[1]}/secret", "x"))
