"""A small gateway on a real Unix socket, scripted per test; and a `Place`, a test's own file, state and socket.

The fake keeps an inbox of ids, as the real one does: a repeated id with the same content gets its present status, one
with other content is rejected, and `{"status": ID}` is answered from it. What a script says comes before all that.
"""

from __future__ import annotations

import io
import json
import os
import socket
import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from bub_cron.errors import RequestError
from bub_cron.gateway import inbox_schema
from bub_cron.paths import Paths, find_paths
from bub_cron.store import FAR, open_store
from bub_cron.trigger import tick
from bub_cron.wire import firing_id, iso, parse_instant, parse_request

type Message = dict[str, Any]
type Script = Callable[[Message], Sequence[Message | bytes] | None]
"""Takes a request; returns the lines to answer it with, or None to let the fake answer as a good gateway does."""

LEAVE = b""  # in a script's answer: close the connection here


class Result(NamedTuple):
    """What a command came to."""

    status: int
    out: str
    err: str


type Run = Callable[..., Result]
"""Runs a command with these arguments."""


def busy(request: Message) -> Sequence[Message] | None:
    return None if "status" in request else [{"id": request["id"], "status": "busy", "error": "the inbox is full"}]


def rejecting(request: Message) -> Sequence[Message]:
    return [{"id": request["id"], "status": "rejected", "error": "commands are not allowed"}]


def silent(_: Message) -> Sequence[Message]:
    return []


def ending(**outcome: Any) -> Script:
    """Make a script that accepts, and follows with a final outcome if the request waits for one."""

    def script(request: Message) -> Sequence[Message]:
        if "ping" in request:
            return [{"status": "pong"}]
        first = {"id": request["id"], "status": "accepted"}
        return [first, {"id": request["id"], **outcome}] if request.get("wait", True) else [first]

    return script


class FakeGateway:
    """Listens while it is entered.

    `greeting` is written to each connection at once; `leave_after` closes a connection when so many of its lines have
    been read, the last of them unanswered; `on_line` sees each line's object before it is answered.
    """

    def __init__(
        self,
        path: str,
        script: Script | None = None,
        *,
        greeting: bytes = b"",
        refuses: bool = False,
        leave_after: int | None = None,
        on_line: Callable[[Message], None] | None = None,
    ) -> None:
        self.requests: list[Message] = []
        self.taken: list[str] = []  # ids, once each time that one was new
        self.inbox: dict[str, str] = {}  # id -> content
        self.knows_all = False  # what an earlier fake of the same test took
        self.closed = threading.Event()  # a connection was closed by this side
        self.errors: list[Exception] = []
        self._path = path
        self._script = script
        self._greeting = greeting
        self._refuses = refuses
        self._leave_after = leave_after
        self._on_line = on_line
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def __enter__(self) -> FakeGateway:
        os.makedirs(os.path.dirname(self._path), exist_ok=True)
        self._listener.bind(self._path)
        self._listener.listen(64)
        self._start(self._accept)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for connection in self._connections:
            _shut(connection)
        for thread in self._threads:
            thread.join()
        os.unlink(self._path)
        if error is None and self.errors:
            raise self.errors[0]

    @property
    def submitted(self) -> list[str]:
        """The ids of the requests read, in order."""
        return [request["id"] for request in self.requests if "id" in request]

    @property
    def asked(self) -> list[str]:
        """The ids that were asked for, in order."""
        return [request["status"] for request in self.requests if "status" in request]

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            try:
                self._converse(connection, lines)
            except OSError:
                pass  # the caller has gone
            except Exception as error:
                self.errors.append(error)
            _shut(connection)
            self.closed.set()

    def _converse(self, connection: socket.socket, lines: io.BufferedReader) -> None:
        connection.sendall(self._greeting)
        if self._refuses:
            return
        for count, line in enumerate(lines, 1):
            request = json.loads(line)
            with self._lock:
                self.requests.append(request)
            if self._on_line is not None:
                self._on_line(request)
            if count == self._leave_after:
                return
            answers = self._script(request) if self._script is not None else None
            for answer in self._answers(line, request) if answers is None else answers:
                if answer == LEAVE:
                    return
                connection.sendall(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")

    def _answers(self, line: bytes, request: Message) -> Sequence[Message]:
        if "status" in request:
            known = request["status"] in self.inbox or self.knows_all
            return [{"id": request["status"], "status": "accepted" if known else "unknown-id"}]
        try:
            parsed: Any = parse_request(line.strip(), now=0, new_id=lambda: "poke-1")
        except RequestError as error:
            return [{**({"id": error.id} if error.id else {}), "status": "rejected", "error": str(error)}]
        content = parsed.content()
        with self._lock:
            if self.inbox.setdefault(parsed.id, content) != content:
                return [{"id": parsed.id, "status": "rejected", "error": "the id is known, with other content"}]
            if parsed.id not in self.taken:
                self.taken.append(parsed.id)
        return [{"id": parsed.id, "status": "accepted"}]


def _shut(connection: socket.socket) -> None:
    with suppress(OSError):  # closed already
        connection.shutdown(socket.SHUT_RDWR)


def at(text: str) -> int:
    """The instant of an ISO text, in UTC where it has no offset."""
    moment = datetime.fromisoformat(text if text.endswith("Z") else text + "Z")
    return int(moment.timestamp())


class Place:
    """One test's own file, state directory and socket, and ticks over them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environ = {"BUB_HOME": str(home)}
        self.paths: Paths = find_paths(self.environ)

    def write(self, text: str, saved: int) -> None:
        """Write the reminders file, as saved at an instant."""
        self.home.mkdir(parents=True, exist_ok=True)
        # Another inode each time, as most editors do, so that no two versions share a signature.
        fresh = f"{self.paths.file}.{os.urandom(4).hex()}"
        Path(fresh).write_text(text, encoding="utf-8")
        os.utime(fresh, (saved, saved))
        os.replace(fresh, self.paths.file)

    def tick(self, now: float) -> tuple[int, str]:
        """Run a tick; return its exit status and what it printed."""
        out = io.StringIO()
        return tick.run(self.paths, now, out), out.getvalue()

    def gateway(self, script: Script | None = None, **how: Any) -> FakeGateway:
        return FakeGateway(self.paths.socket, script, **how)

    def select(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Read the ledger."""
        with closing(sqlite3.connect(self.paths.ledger)) as ledger:
            return ledger.execute(query, values).fetchall()

    def states(self) -> dict[str, str]:
        """Each firing's state by its id."""
        return dict(self.select("SELECT id, state FROM firings ORDER BY fire_time, id"))

    def reason(self, firing: str) -> str | None:
        ((reason,),) = self.select("SELECT reason FROM firings WHERE id = ?", firing)
        return None if reason is None else str(reason)

    def error(self, firing: str) -> str | None:
        ((error,),) = self.select("SELECT error FROM firings WHERE id = ?", firing)
        return None if error is None else str(error)

    def open_inbox(self) -> sqlite3.Connection:
        """Open the gateway's store, as its gateway would."""
        return open_store(self.paths.inbox, inbox_schema.SHAPE)

    def fill_inbox(self, **columns: Any) -> None:
        """Put a firing into the gateway's store, which is closed again afterwards."""
        with closing(self.open_inbox()) as store:
            insert(store, **columns)


def insert(store: sqlite3.Connection, **columns: Any) -> None:
    """Put a firing into an inbox: the columns given, and something for the others; `messages` are rows of their own."""
    messages = columns.pop("messages", ())
    row = {"id": "poke-1", "request": "{}", "expires": 0.0, "state": "accepted", "accepted_at": 0.0, **columns}
    row.setdefault("moment", _moment(row))
    _put(store, "firings", row)
    for number, message in enumerate(messages, 1):
        sent = {"kind": "reply", "to": "telegram:1", "until": 0.0, "state": "delivered", "sends": 1, **message}
        _put(store, "messages", {"firing": row["id"], "number": number, **sent})


def _moment(row: dict[str, Any]) -> float:
    """Return the instant that a firing is about, as the inbox has it."""
    try:
        moment = parse_instant(row.get("fire_time") or "")
    except ValueError:
        moment = -1.0
    return moment if 0 <= moment <= FAR else float(row["accepted_at"])


def _put(store: sqlite3.Connection, table: str, row: dict[str, Any]) -> None:
    names, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" * len(row))
    store.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(row.values()))  # noqa: S608


def firing(reminder: str, text: str) -> str:
    """The id of a reminder's firing at an instant."""
    return firing_id(reminder, iso(at(text)))
