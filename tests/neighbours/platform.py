"""A platform's HTTP server on loopback, of which a test says how each request ends.

It speaks HTTP, or HTTPS behind a proxy's CONNECT. It keeps what it took in, whatever it answers afterwards: that is what
arrived in the chat.
"""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

_PATIENCE = 60.0


class Step(NamedTuple):
    """How one message ends: whether the platform takes it, and what the sender sees of that."""

    takes: bool
    end: str = "answer"
    """`answer`, `close` (no answer), `reset` (no answer, hard), `half` (of an answer), `hang`."""
    status: int = 200
    body: bytes | None = None
    """None: the platform's usual answer."""
    headers: tuple[tuple[str, str], ...] = ()


def answers(status: int, content: object, **headers: str) -> Step:
    """A step in which the platform says, as JSON, that it doesn't take the message."""
    return Step(takes=False, status=status, body=json.dumps(content).encode(), headers=tuple(headers.items()))


TAKES = Step(takes=True)
TAKES_AND_CLOSES = Step(takes=True, end="close")
TAKES_AND_RESETS = Step(takes=True, end="reset")
TAKES_AND_BREAKS_OFF = Step(takes=True, end="half")
TAKES_AND_HANGS = Step(takes=True, end="hang")
TAKES_AND_BABBLES = Step(takes=True, body=b"<html>it works</html>")
TAKES_AND_FAILS = Step(takes=True, status=502, body=b"<html>bad gateway</html>")
CLOSES = Step(takes=False, end="close")
HANGS = Step(takes=False, end="hang")


class Request(NamedTuple):
    """One request that came in whole."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def fields(self) -> dict[str, Any]:
        """Return the fields of a body that is a form or a JSON object."""
        if "json" in self.headers.get("content-type", ""):
            fields: dict[str, Any] = json.loads(self.body)
            return fields
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass
class Platform:
    """Serves at 127.0.0.1:`port` from `start()` to `stop()`.

    `answer` gives the usual answer to a request. `is_message` tells which requests are messages: for each of these the
    next step of `script` counts, then `always`. `arrived` holds the messages that it took, in order, `asked` all messages.
    """

    answer: Callable[[Request], tuple[int, Any]]
    is_message: Callable[[Request], bool]
    tls: ssl.SSLContext | None = None
    """With it, it is a proxy that plays whatever host a CONNECT names."""
    script: list[Step] = field(default_factory=list)
    always: Step = TAKES
    arrived: list[Request] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)
    port: int = 0
    _listener: socket.socket | None = None
    _open: set[socket.socket] = field(default_factory=set)
    _stopped: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> Platform:
        """Listen; after `stop()` at the same port again, as a platform that is back."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self.port = listener.getsockname()[1]
        self._listener, self._stopped = listener, threading.Event()
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()
        return self

    def stop(self) -> None:
        """End all connections; from now on they are refused."""
        self._stopped.set()
        if self._listener is not None:
            # Without shutdown, an accept() under way would take one more.
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def is_listening(self) -> bool:
        return self._listener is not None and self._listener.fileno() >= 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection, self._stopped), daemon=True).start()

    def _serve(self, connection: socket.socket, stopped: threading.Event) -> None:
        connection.settimeout(_PATIENCE)
        talk = connection
        try:
            if self.tls is not None:
                talk = _behind_connect(connection, self.tls)
            with self._lock:
                self._open.add(talk)
            with talk.makefile("rb") as reader:
                while not stopped.is_set() and (request := _read(reader)) is not None:
                    if not self._finish(talk, request, stopped):
                        return
        except (OSError, ssl.SSLError, ValueError):
            return  # the channel went away, or we were stopped
        finally:
            with self._lock:
                self._open.discard(talk)
            for each in (talk, connection):
                with suppress(OSError):
                    each.close()

    def _finish(self, talk: socket.socket, request: Request, stopped: threading.Event) -> bool:
        """Do with a request as told; return whether the connection goes on."""
        step = TAKES
        if self.is_message(request):
            with self._lock:
                step = self.script.pop(0) if self.script else self.always
                self.asked.append(request)
                if step.takes:
                    self.arrived.append(request)
        if step.end == "hang":
            stopped.wait(_PATIENCE)
            return False
        if step.end == "close":
            return False
        if step.end == "reset":
            talk.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        status, content = (step.status, step.body) if step.body is not None else self.answer(request)
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        kind = "application/json" if body[:1] in b"{[" else "text/html"
        headers = {"Content-Type": kind, "Content-Length": len(body), **dict(step.headers)}
        lines = [f"HTTP/1.1 {status} X", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        talk.sendall("\r\n".join(lines).encode() + (body[: len(body) // 2] if step.end == "half" else body))
        return step.end != "half"


def _behind_connect(connection: socket.socket, tls: ssl.SSLContext) -> socket.socket:
    """Answer a CONNECT and return the connection with TLS on it, as the host that it asked for."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            raise OSError("closed")
        head += byte
    connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    return tls.wrap_socket(connection, server_side=True)


def _read(reader: Any) -> Request | None:
    line = reader.readline()
    if not line:
        return None
    method, path, _ = line.decode().split(" ", 2)
    headers = {}
    while (line := reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode().partition(":")
        headers[name.strip().lower()] = value.strip()
    length = int(headers.get("content-length", "0"))
    body = reader.read(length)
    # A sender that is killed in the middle of its request leaves the beginning of one, of which nothing arrives.
    return Request(method, path, headers, body) if len(body) == length else None
