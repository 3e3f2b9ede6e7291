"""writable.py: why a file can't be written, in one sentence, and nothing where it can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bub_cron.writable import why_not_writable

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
SOMEBODY, OTHER = 65534, 4242


@pytest.fixture
def path() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="bc-"))  # one that other users may look into
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@contextmanager
def user(uid: int) -> Iterator[None]:
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def why(path: Path) -> str:
    before = sorted(path.parent.rglob("*"))
    said = why_not_writable(str(path))
    assert sorted(path.parent.rglob("*")) == before  # nothing was made
    return said


def test_a_file_that_is_there_and_one_that_is_not(path: Path) -> None:
    assert why(path / "chat.yaml") == ""
    (path / "chat.yaml").write_text("")
    assert why(path / "chat.yaml") == ""


def test_a_directory_that_can_be_made(path: Path) -> None:
    assert why_not_writable(str(path / "a" / "b" / "chat.yaml")) == ""


def test_what_is_no_file(path: Path) -> None:
    (path / "chat.yaml").mkdir()
    assert why(path / "chat.yaml") == f"{path}/chat.yaml is not a regular file"


def test_what_is_no_directory(path: Path) -> None:
    (path / "reminders.d").write_text("")
    assert why_not_writable(f"{path}/reminders.d/chat.yaml") == f"{path}/reminders.d is not a directory"


def test_a_link_to_nowhere(path: Path) -> None:
    (path / "reminders.d").symlink_to(path / "gone")
    said = why_not_writable(f"{path}/reminders.d/chat.yaml")
    assert said == f"{path}/reminders.d/chat.yaml can't be looked at: No such file or directory"


@ROOT_ONLY
def test_another_users_directory(path: Path) -> None:
    with user(OTHER):
        said = why(path / "chat.yaml")
        assert said == f"{path} belongs to user root, and user {OTHER} may not write there"
        said = why_not_writable(f"{path}/reminders.d/chat.yaml")
    there = f"{path}/reminders.d is not there and can't be made: {path} belongs to user root"
    assert said == f"{there}, and user {OTHER} may not write there"


@ROOT_ONLY
def test_another_users_file_in_a_directory_of_ones_own(path: Path) -> None:
    os.chown(path, OTHER, OTHER)
    (path / "chat.yaml").write_text("")
    os.chown(path / "chat.yaml", SOMEBODY, SOMEBODY)
    with user(OTHER):
        assert why(path / "chat.yaml") == f"{path}/chat.yaml belongs to user nobody, and this is user {OTHER}"
    assert why(path / "chat.yaml") == ""  # root may write for its owner


@ROOT_ONLY
def test_a_mode_that_does_not_let_the_owner_write(path: Path) -> None:
    os.chown(path, OTHER, OTHER)
    path.chmod(0o555)
    with user(OTHER):
        assert why(path / "chat.yaml") == f"{path} may not be written by its owner (mode 0555)"


@ROOT_ONLY
def test_a_directory_that_may_not_be_looked_into(path: Path) -> None:
    path.chmod(0o700)
    with user(OTHER):
        said = why_not_writable(f"{path}/reminders.d/chat.yaml")
    assert said == f"user {OTHER} may not look into {path}/reminders.d"


@ROOT_ONLY
def test_a_read_only_file_system(path: Path) -> None:
    code = "import sys; from bub_cron.writable import why_not_writable; print(why_not_writable(sys.argv[1]))"
    script = f'mount --bind {path} {path} && mount -o remount,bind,ro {path} && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", code, f"{path}/chat.yaml"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    if done.returncode != 0:
        pytest.skip(f"no mount namespace can be had here: {done.stderr}")
    assert done.stdout == f"{path} is on a read-only file system\n"
