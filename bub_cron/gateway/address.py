"""The socket's place in the file system: who owns it, and how it comes into being.

Invariants:
- One process at a time owns a place: an flock beside it, which ends with the process, whatever ends it.
- The socket has its final mode from the first instant at which anybody can connect. It and its lock are only ever in a
  directory where nobody else may write.
- A stale socket is replaced in one step, and nothing that is not a stale socket is ever removed.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat

from bub_cron.errors import BubCronError
from bub_cron.paths import make_private_directory, why_unsafe

_LONGEST_ADDRESS = 107  # bytes, Linux's sun_path less its final NUL
_BACKLOG = 1024  # callers that wait to be let in


class TakenError(BubCronError):
    """Another process owns the place; `holder` is what it wrote there about itself, "" if nothing."""

    def __init__(self, path: str, holder: str) -> None:
        super().__init__(f"{path} belongs to another gateway{f' (process {holder})' if holder else ''}")
        self.holder = holder


class AddressError(BubCronError):
    """The socket can't be placed there; the text says why and what would be right."""


class Ownership:
    """A lock on `PATH.lock`, held until `release()` or the end of the process."""

    def __init__(self, path: str) -> None:
        """Take the lock; raise `TakenError` if another process has it."""
        try:
            make_private_directory(os.path.dirname(path))
            self._fd = _lock(path)
        except TakenError:
            raise
        except OSError as error:
            where, link = error.filename or path, error.errno == errno.ELOOP
            why = "it is a symbolic link: remove it" if link else error.strerror or error
            raise AddressError(f"can't own {path}: {where}: {why}") from error

    def release(self) -> None:
        """Let go. The lock file stays: removing it would let two processes lock two files of one name."""
        os.close(self._fd)


def _lock(path: str) -> int:
    lock = f"{path}.lock"
    while True:
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(fd)
            if _is_at(lock, (found.st_dev, found.st_ino)):
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                return fd
        except BlockingIOError as error:
            holder = os.pread(fd, 20, 0).decode("ascii", "replace").strip()
            os.close(fd)
            raise TakenError(path, holder if holder.isdigit() else "") from error
        except OSError:
            os.close(fd)
            raise
        os.close(fd)  # somebody removed it in between: a lock on what has no name keeps nobody out


def _is_at(path: str, identity: tuple[int, int]) -> bool:
    try:
        return _identity(path) == identity
    except OSError:
        return False


class BoundSocket:
    """A listening Unix socket at `path`, which `remove()` takes away again unless somebody else's stands there by then."""

    def __init__(self, path: str, mode: int) -> None:
        """Bind and listen; raise `AddressError`. The caller holds the `Ownership` of `path`."""
        self._path = path
        self._mode = mode
        # Bound under another name and moved into place: so nobody can connect before the mode is right, and a stale
        # socket is replaced without an instant in which there is none.
        early = f"{path}.new"
        if len(os.fsencode(early)) > _LONGEST_ADDRESS:
            longest = _LONGEST_ADDRESS - len(".new")
            raise AddressError(
                f"{path} is too long for a socket ({len(os.fsencode(path))} bytes, at most {longest}):"
                " set BUB_CRON_SOCKET to a shorter path, for the gateway and for the tick"
            )
        try:
            if unsafe := why_unsafe(os.path.dirname(path)):
                raise AddressError(f"can't listen at {path}: {unsafe}")
            _refuse_what_is_not_stale(path)
            self.socket = _listening(early, mode)
            try:
                os.rename(early, path)
                self._identity = _identity(path)
            except OSError:
                self.socket.close()
                raise
        except OSError as error:
            raise AddressError(f"can't listen at {path}: {error.strerror or error}") from error

    def again(self) -> BoundSocket:
        """Bind anew at the same place, from which this one has gone; raise `AddressError` as before."""
        return BoundSocket(self._path, self._mode)

    def is_there(self) -> bool:
        """Tell whether the path still leads here."""
        return _is_at(self._path, self._identity)

    def remove(self) -> None:
        """Remove the socket file if it is still ours."""
        if self.is_there():
            os.unlink(self._path)


def _listening(path: str, mode: int) -> socket.socket:
    _unlink_socket(path)  # left by a crash between bind and rename
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(path)
        os.chmod(path, mode)
        listening.listen(_BACKLOG)  # only now can anybody connect
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def _refuse_what_is_not_stale(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AddressError(f"{path} is there and is not a socket: move it away, or set BUB_CRON_SOCKET")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return  # nobody lives there
        except OSError as error:
            raise AddressError(f"{path} can't be looked into: {error.strerror or error}") from error
    raise AddressError(f"something else listens at {path}: end it, or set BUB_CRON_SOCKET")


def _unlink_socket(path: str) -> None:
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        return


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
