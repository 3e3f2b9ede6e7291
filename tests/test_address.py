"""address.py: one owner of a place, and a socket that is private, replaces only what is stale, and takes only itself away."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bub_cron.gateway.address import AddressError, BoundSocket, Ownership, TakenError


@contextmanager
def other_process(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that runs `code`, prints a line when it is ready, and stays."""
    script = f"import sys\nfrom bub_cron.gateway.address import *\n{code}\nprint('ready', flush=True)\nsys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def stale(place: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(place))


# --- Ownership


def test_a_place_has_one_owner_across_processes_and_names_it(path: Path) -> None:
    with other_process("owned = Ownership(sys.argv[1])", str(path / "s")) as owner:
        with pytest.raises(TakenError, match=f"process {owner.pid}") as taken:
            Ownership(str(path / "s"))
        assert taken.value.holder == str(owner.pid)
        Ownership(str(path / "other")).release()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_owner_leaves_nothing_locked(path: Path, how: signal.Signals) -> None:
    with other_process("owned = Ownership(sys.argv[1])", str(path / "s")) as owner:
        owner.send_signal(how)
        owner.wait()
        Ownership(str(path / "s")).release()


def test_within_one_process_a_place_has_one_owner_too(path: Path) -> None:
    first = Ownership(str(path / "s"))
    with pytest.raises(TakenError, match=str(os.getpid())):
        Ownership(str(path / "s"))
    first.release()
    Ownership(str(path / "s")).release()


def test_a_child_process_does_not_keep_the_ownership(path: Path) -> None:
    owned = Ownership(str(path / "s"))
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        owned.release()
        Ownership(str(path / "s")).release()
        child.kill()


def test_the_lock_file_stays_and_is_private(path: Path) -> None:
    place = path / "new" / "s"
    Ownership(str(place)).release()
    assert stat.S_IMODE((path / "new" / "s.lock").stat().st_mode) == 0o600
    assert stat.S_IMODE((path / "new").stat().st_mode) == 0o700


def test_a_lock_that_is_a_symbolic_link_is_not_followed(path: Path) -> None:
    (path / "target").write_text("precious")
    (path / "s.lock").symlink_to(path / "target")
    with pytest.raises(AddressError, match=r"s\.lock: it is a symbolic link"):
        Ownership(str(path / "s"))
    assert (path / "target").read_text() == "precious"


# --- The socket


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_the_socket_has_its_mode_from_the_first_instant_at_which_one_can_connect(
    path: Path, monkeypatch: pytest.MonkeyPatch, mode: int
) -> None:
    seen: list[tuple[str, int]] = []
    listen = socket.socket.listen

    class Watched(socket.socket):
        def listen(self, backlog: int = 0, /) -> None:
            name = self.getsockname()
            seen.append((name, stat.S_IMODE(os.stat(name).st_mode)))
            assert not (path / "s").exists()
            listen(self, backlog)

    monkeypatch.setattr(socket, "socket", Watched)
    before = os.umask(0)
    try:
        bound = BoundSocket(str(path / "s"), mode)
    finally:
        os.umask(before)
    assert seen == [(str(path / "s.new"), mode)]
    assert stat.S_IMODE((path / "s").stat().st_mode) == mode
    assert not (path / "s.new").exists()
    bound.socket.close()


def test_one_can_connect(path: Path) -> None:
    bound = BoundSocket(str(path / "s"), 0o600)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path / "s"))
    bound.socket.close()


def test_a_stale_socket_is_replaced(path: Path) -> None:
    stale(path / "s")
    stale(path / "s.new")  # of a crash between bind and rename
    bound = BoundSocket(str(path / "s"), 0o600)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path / "s"))
    bound.socket.close()


def test_a_socket_of_a_killed_process_is_replaced(path: Path) -> None:
    with other_process("bound = BoundSocket(sys.argv[1], 0o600)", str(path / "s")) as owner:
        owner.kill()
        owner.wait()
        assert (path / "s").is_socket()
        BoundSocket(str(path / "s"), 0o600).socket.close()


def test_a_live_socket_is_never_replaced_and_goes_on(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as lives:
        lives.bind(str(path / "s"))
        lives.listen()
        before = (path / "s").stat().st_ino
        with pytest.raises(AddressError, match="something else listens"):
            BoundSocket(str(path / "s"), 0o600)
        assert (path / "s").stat().st_ino == before
        with socket.socket(socket.AF_UNIX) as caller:
            caller.connect(str(path / "s"))


@pytest.mark.parametrize("make", ["file", "directory", "link", "fifo"])
def test_what_is_no_socket_is_refused_and_left_alone(path: Path, make: str) -> None:
    place = path / "s"
    if make == "file":
        place.write_text("precious")
    elif make == "directory":
        place.mkdir()
    elif make == "link":
        place.symlink_to(path / "nowhere")
    else:
        os.mkfifo(place)
    before = place.lstat()
    with pytest.raises(AddressError, match="not a socket"):
        BoundSocket(str(place), 0o600)
    assert place.lstat() == before


def test_a_file_in_the_way_of_the_early_name_is_refused_and_left_alone(path: Path) -> None:
    (path / "s.new").write_text("precious")
    with pytest.raises(AddressError, match="can't listen"):
        BoundSocket(str(path / "s"), 0o600)
    assert (path / "s.new").read_text() == "precious"


def test_a_path_that_is_too_long_says_how_long_it_may_be(path: Path) -> None:
    longest = 107 - len(".new")
    fits = path / ("x" * (longest - len(str(path)) - 1))
    BoundSocket(str(fits), 0o600).socket.close()
    with pytest.raises(AddressError, match=rf"{longest + 1} bytes, at most {longest}.*BUB_CRON_SOCKET"):
        BoundSocket(f"{fits}y", 0o600)


def test_a_missing_directory_is_an_error_in_words(path: Path) -> None:
    with pytest.raises(AddressError, match="No such file"):
        BoundSocket(str(path / "no" / "s"), 0o600)


def test_it_removes_itself(path: Path) -> None:
    bound = BoundSocket(str(path / "s"), 0o600)
    bound.remove()
    assert not (path / "s").exists()
    bound.remove()
    bound.socket.close()


def test_it_removes_nobody_elses_socket(path: Path) -> None:
    bound = BoundSocket(str(path / "s"), 0o600)
    (path / "s").unlink()
    stale(path / "s")
    bound.remove()
    assert (path / "s").is_socket()
    bound.socket.close()
