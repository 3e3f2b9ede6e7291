"""health/chat.py: what stands between a reminder that is made in chat and the tick, and that each has a remedy."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fake_gateway import Place
from health_kit import Programs, answering, healthy

from bub_cron.cli import commands
from bub_cron.health import doctor
from bub_cron.health.chat import chat_findings
from bub_cron.health.finding import BROKEN, OK, WARNING, Finding
from bub_cron.paths import chat_file
from bub_cron.reminders import load

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become other users")
GATEWAY, TICK = 4242, 4243
CHAT = "reminders:\n  cake: {to: 'telegram:1', timezone: UTC, at: 2031-12-24 18:00, text: The cake.}\n"


@pytest.fixture
def place() -> Iterator[Place]:
    directory = Path(tempfile.mkdtemp(prefix="bc-"))  # one that other users may look into
    directory.chmod(0o755)
    yield healthy(directory / "bub")
    shutil.rmtree(directory)


def write(place: Place, owner: int | None = None) -> Path:
    path = Path(chat_file(place.paths.file))
    path.parent.mkdir(mode=0o755)
    path.write_text(CHAT)
    path.chmod(0o600)
    if owner is not None:
        os.chown(path.parent, owner, owner)
        os.chown(path, owner, owner)
    return path


def pong(place: Place, **about: Any) -> dict[str, Any]:
    return {"chat": "prompt", "chat_file": chat_file(place.paths.file), **about}


def found(place: Place, gateway: dict[str, Any] | None) -> Finding:
    [one] = chat_findings(place.paths, gateway, load(place.paths.file))
    assert one.link == "chat"
    assert bool(one.remedy) == (one.state != OK)
    return one


@contextmanager
def tick_of(place: Place, user: int, *, gateway: int = GATEWAY) -> Iterator[None]:
    """Be a user, with a socket that is the gateway's user's."""
    socket = Path(place.paths.socket)
    socket.parent.mkdir(exist_ok=True)
    socket.parent.chmod(0o755)
    socket.write_text("")
    os.chown(socket, gateway, gateway)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


# --- All is well


def test_where_none_has_been_made(place: Place) -> None:
    said = found(place, pong(place))
    assert (said.state, said.text) == (OK, "the agent may make reminders; none has been made in chat yet")


def test_where_one_has_been_made(place: Place) -> None:
    path = write(place)
    said = found(place, pong(place, chat="text"))
    assert (said.state, said.text) == (OK, f"the agent may make reminders with a text; {path} has 1")


def test_without_a_gateway_what_the_files_tell(place: Place) -> None:
    path = write(place)
    assert (found(place, None).state, found(place, None).text) == (OK, f"{path} has 1")


def test_what_is_turned_off_is_one_short_line(place: Place) -> None:
    gateway = pong(place, chat="off", chat_file="/nowhere/reminders.d/chat.yaml")
    said = found(place, gateway)
    assert (said.state, said.text) == (OK, "off: the agent has no tools that make reminders (BUB_CRON_CHAT)")


def test_a_gateway_of_an_older_version_says_nothing_of_it(place: Place) -> None:
    assert found(place, {}).text == "none has been made in chat yet"


# --- What the gateway can't write, or writes elsewhere


def test_a_gateway_that_cannot_write(place: Place) -> None:
    said = found(place, pong(place, chat_error="/etc/bub is on a read-only file system"))
    assert (said.state, said.text) == (
        WARNING, "the agent can't make reminders: /etc/bub is on a read-only file system"
    )  # fmt: skip
    assert f"ReadWritePaths={place.home}/reminders.d" in said.remedy
    assert "BUB_CRON_CHAT=off" in said.remedy


def test_a_gateway_that_writes_where_no_tick_reads(place: Place) -> None:
    (place.home / "other").mkdir()
    theirs = f"{place.home}/other/reminders.d/chat.yaml"
    said = found(place, pong(place, chat_file=theirs))
    assert said.state == BROKEN
    assert said.text.startswith(f"the gateway writes reminders made in chat to {theirs}, and the tick reads ")
    assert f"BUB_CRON_FILE={place.paths.file}" in said.remedy


def test_a_gateway_whose_directory_is_not_seen_from_here(place: Place) -> None:
    said = found(place, pong(place, chat_file="/no/such/reminders.d/chat.yaml"))
    assert said.state == WARNING
    assert "it can't be seen whether that is the same file" in said.text


def test_the_same_file_under_another_name(place: Place) -> None:
    write(place)
    (place.home.parent / "link").symlink_to(place.home)
    gateway = pong(place, chat_file=f"{place.home.parent}/link/reminders.d/chat.yaml")
    assert found(place, gateway).state == OK


# --- What the tick's user can't read


@ROOT_ONLY
def test_a_file_that_is_another_users(place: Place) -> None:
    path = write(place, GATEWAY)
    with tick_of(place, TICK):
        [said] = chat_findings(place.paths, pong(place), None)
    assert (said.state, said.text) == (BROKEN, f"{path} can't be read: Permission denied")
    assert said.remedy.startswith(f"run the tick as user {GATEWAY}, or ")
    path.chmod(0o644)
    with tick_of(place, TICK):
        [said] = chat_findings(place.paths, None, None)
    assert f"{path} belongs to user {GATEWAY}, so it is ignored" in said.text


@ROOT_ONLY
def test_a_file_that_is_going_to_be_another_users(place: Place) -> None:
    with tick_of(place, TICK):
        said = found(place, pong(place))
    assert said.state == BROKEN
    assert f"is user {GATEWAY}'s alone, and this is user {TICK}: it never fires" in said.text
    assert said.remedy.startswith(f"run the tick as user {GATEWAY}, or ")
    with tick_of(place, TICK, gateway=TICK):
        assert found(place, pong(place)).state == OK
    with tick_of(place, 0):
        assert found(place, pong(place)).state == OK  # root reads what its owner put there


@ROOT_ONLY
def test_what_a_gateway_of_roots_makes_is_the_directorys_owners(place: Place) -> None:
    with tick_of(place, TICK, gateway=0):
        assert f"is user root's alone, and this is user {TICK}" in found(place, pong(place)).text
    (place.home / "reminders.d").mkdir()
    os.chown(place.home / "reminders.d", TICK, TICK)
    with tick_of(place, TICK, gateway=0):
        assert found(place, pong(place)).state == OK


def test_a_file_that_others_may_write(place: Place) -> None:
    path = write(place)
    path.chmod(0o666)
    [said] = chat_findings(place.paths, pong(place), None)
    assert (said.state, said.remedy) == (BROKEN, f"chmod 600 {path}")
    assert "may be written by others" in said.text


# --- The command


def test_doctor_tells_it_also_as_json(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Programs(tmp_path, monkeypatch).timer(place.paths)
    monkeypatch.setattr(doctor, "why_absent", lambda _: [])
    monkeypatch.setenv("BUB_HOME", str(place.home))
    with place.gateway(answering(**pong(place, chat="off"))):
        done = CliRunner().invoke(commands, ["doctor", "--json"])
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(set(line) == {"link", "state", "text", "remedy"} for line in lines)
    assert next(line for line in lines if line["link"] == "chat")["text"].startswith("off: ")
    assert "broken" in {line["state"] for line in lines}  # the house's time is past, so its tick is late
    assert done.exit_code == 1
