"""Talk to the gateway over its socket: write lines, read answers.

Invariants:
- Writing and reading go on together, so thousands of pipelined requests can't lock the two sides up.
- Every wait has an end.
- Nothing is said to an untrusted user.
- What goes wrong is a `GatewayAbsentError` whose text says what to look at.
"""

from __future__ import annotations

import os
import select
import socket
import sys
import time

from bub_cron.errors import GatewayAbsentError, user_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Any

CONNECT_SECONDS = 5.0
_LONGEST_ANSWER = 8 * 1024 * 1024  # bytes: many times what a gateway keeps of a reply
PATIENCE = 20.0  # seconds without any progress after which the gateway counts as gone


class Connection:
    """One connection to the gateway's socket. Use as a context manager."""

    __slots__ = ("_path", "_received", "_socket")

    def __init__(self, path: str) -> None:
        """Connect, or raise `GatewayAbsentError`."""
        self._path = path
        self._received = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(CONNECT_SECONDS)
        try:
            self._knock(path)
            stranger = _stranger(self._socket, path)
        except OSError as error:
            self._socket.close()
            raise GatewayAbsentError(_absent(path, error)) from error
        if stranger:
            self._socket.close()
            raise GatewayAbsentError(stranger)

    def _knock(self, path: str) -> None:
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                self._socket.connect(path)
            except BlockingIOError:  # a crowd waits to be let in
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def exchange(
        self, lines: list[bytes], on_answer: Callable[[dict[str, Any]], None], patience: float | None = None
    ) -> None:
        """Write the lines and hand over one answer for each, in the order in which they come.

        `patience`, by default PATIENCE, is how many seconds without any progress are borne.
        Raises `GatewayAbsentError` if the gateway goes silent or away before the last one; the answers handed over by
        then stand.
        """
        patience = PATIENCE if patience is None else patience
        left, expected = memoryview(b"".join(lines)), len(lines)
        self._socket.setblocking(False)
        while expected:
            readable, writable, _ = select.select([self._socket], [self._socket] if left else [], [], patience)
            if not readable and not writable:
                raise GatewayAbsentError(f"the gateway at {self._path} did not answer within {patience:g} s")
            try:
                if readable:
                    for answer in self._receive():
                        on_answer(answer)
                        expected -= 1
                elif writable:
                    left = left[self._socket.send(left) :]
            except BrokenPipeError:
                left = left[:0]  # it takes no more; what it has said is still to be read
            except BlockingIOError:
                continue
            except OSError as error:
                raise GatewayAbsentError(_absent(self._path, error)) from error

    def write(self, line: bytes) -> None:
        """Write one line; if it is taken no more, the next read tells why."""
        self._socket.settimeout(PATIENCE)
        try:
            self._socket.sendall(line)
        except BrokenPipeError:
            return  # what it has said is still to be read: that this user may not talk to it, say
        except OSError as error:
            raise GatewayAbsentError(_absent(self._path, error)) from error

    def read_some(self) -> list[dict[str, Any]]:
        """Return the answers that come first; `GatewayAbsentError` if none does."""
        answers = self.read(PATIENCE)
        if not answers:
            raise GatewayAbsentError(f"the gateway at {self._path} did not answer within {PATIENCE:g} s")
        return answers

    def read(self, seconds: float) -> list[dict[str, Any]]:
        """Return the answers that come within so many seconds, as soon as there is one; [] if there is none."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not select.select([self._socket], [], [], left)[0]:
                break
            try:
                if answers := list(self._receive()):
                    return answers
            except OSError as error:
                raise GatewayAbsentError(_absent(self._path, error)) from error
        return []

    def _receive(self) -> Iterator[dict[str, Any]]:
        import json

        received = self._socket.recv(1 << 18)
        if not received:
            raise GatewayAbsentError(
                f"the gateway at {self._path} closed the connection before it had answered: it stopped, or is stopping"
            )
        *lines, self._received = (self._received + received).split(b"\n")
        if len(self._received) > _LONGEST_ANSWER:
            raise GatewayAbsentError(f"what listens at {self._path} is no gateway of bub-cron: its answer has no end")
        for line in lines:
            try:
                answer = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise GatewayAbsentError(f"what listens at {self._path} is no gateway of bub-cron") from error
            if not isinstance(answer, dict):
                raise GatewayAbsentError(f"what listens at {self._path} is no gateway of bub-cron")
            yield answer


def ask(path: str, request: Mapping[str, Any], patience: float | None = None) -> dict[str, Any]:
    """Connect, send one request and return its first answer; `GatewayAbsentError` if none comes in so many seconds."""
    from bub_cron.wire import encode

    answers: list[dict[str, Any]] = []
    with Connection(path) as connection:
        connection.exchange([encode(request)], answers.append, patience)
    return answers[0]


def somebody_holds(path: str) -> bool:
    """Tell whether a live process holds a gateway's place (its socket, or its inbox), by the lock beside it.

    One that may not be looked at counts as held. To look takes the lock for an instant, shared; a gateway that starts just
    then waits a second.
    """
    import fcntl

    try:
        lock = os.open(f"{path}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _stranger(connected: socket.socket, path: str) -> str | None:
    """Return who listens, as a sentence, if that may be anybody: what is submitted is not for everybody's eyes.

    The gateway's user may be another one than ours, but not in a place where everybody could have put a socket.
    """
    credentials = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    uid = int.from_bytes(credentials[4:8], sys.byteorder)
    if uid in {0, os.geteuid()}:
        return None
    from bub_cron.paths import others_write

    directory = os.path.dirname(path)
    found = os.stat(directory)
    if found.st_uid in {0, os.geteuid(), uid} and not others_write(found, directory):
        return None
    return f"{user_name(uid)} listens at {path}, where anybody may: let the gateway have a directory of its own"


def _absent(path: str, error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return f"no gateway listens at {path}: start `bub gateway`, or set BUB_CRON_SOCKET to where it listens"
    if isinstance(error, ConnectionRefusedError):
        return f"nobody listens at {path} any more: start `bub gateway`"
    if isinstance(error, PermissionError):
        return f"the socket {path} may not be used by this user: run as the gateway's user, or see BUB_CRON_ALLOW_UIDS"
    if len(path.encode(errors="surrogateescape")) > 107:
        return (
            f"{path} is too long for a socket (at most 107 bytes): set BUB_CRON_SOCKET to a shorter path on both sides"
        )
    return f"the gateway at {path} can't be reached: {error.strerror or error}"
