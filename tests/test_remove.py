"""cli/remove.py: what was made in chat is removed, and no other file is touched."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from fake_gateway import Place, at

from bub_cron.cli import commands

NOON = at("2026-11-23T12:00:00")
OWN = "defaults: {to: 'telegram:1', timezone: UTC}\nreminders:\n  pills: {every: 1h, text: Pills.}\n"
CHAT = """\
reminders:
  # made by Ann in telegram:7 on Mon 2026-11-23 12:00 UTC
  take-the-cake-out:
    to: telegram:7
    timezone: UTC
    at: 2031-12-24 18:00
    text: Take the cake out.
  water:
    to: telegram:7
    timezone: UTC
    every: 2h
    text: Drink water.
"""
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def place() -> Iterator[Place]:
    directory = Path(tempfile.mkdtemp(prefix="bc-"))  # one that other users may look into
    directory.chmod(0o755)
    made = Place(directory / "bub")
    made.write(OWN, NOON)
    yield made
    shutil.rmtree(directory)


@pytest.fixture
def chat(place: Place) -> Path:
    path = place.home / "reminders.d" / "chat.yaml"
    path.parent.mkdir(mode=0o700)
    path.write_text(CHAT)
    path.chmod(0o600)
    return path


def bub_cron(place: Place, *arguments: str) -> Result:
    return CliRunner().invoke(commands, arguments, env=place.environ)


def test_one_made_in_chat_goes_and_the_others_stay(place: Place, chat: Path) -> None:
    done = bub_cron(place, "remove", "water")
    assert (done.exit_code, done.output) == (0, f"removed water from {chat}\n")
    assert "take-the-cake-out" in chat.read_text()
    assert "water" not in chat.read_text()
    assert bub_cron(place, "remove", "take-the-cake-out").exit_code == 0
    done = bub_cron(place, "check")
    assert (done.exit_code, "1 reminder" in done.stdout) == (0, True)


def test_one_of_the_users_own_file_is_not_removed_and_its_place_is_told(place: Place, chat: Path) -> None:
    before = chat.stat(), Path(place.paths.file).read_bytes()
    done = bub_cron(place, "remove", "pills")
    said = f"bub-cron: pills was not made in chat: it stands at {place.paths.file}:3; remove it there\n"
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", said)
    assert (chat.stat(), Path(place.paths.file).read_bytes()) == before


def test_an_unknown_name_gets_the_nearest_of_those_made_in_chat(place: Place, chat: Path) -> None:
    done = bub_cron(place, "remove", "take-the-cake")
    said = "bub-cron: no reminder take-the-cake was made in chat; did you mean take-the-cake-out?\n"
    assert (done.exit_code, done.stderr) == (1, said)
    done = bub_cron(place, "remove", "pill")  # what is near is not one that could be removed
    assert "`bub-cron list` shows those there are" in done.stderr


def test_where_none_was_ever_made_nothing_is_made(place: Place) -> None:
    assert bub_cron(place, "remove", "water").exit_code == 1
    assert sorted(path.name for path in place.home.iterdir()) == ["reminders.yaml"]


def test_a_file_that_cannot_be_read_may_hold_it(place: Place, chat: Path) -> None:
    broken = chat.parent / "work.yaml"
    broken.write_text("reminders: [")
    done = bub_cron(place, "remove", "standup")
    assert done.exit_code == 1
    assert f"{broken} can't be read, so it may stand there: `bub-cron check`\n" in done.stderr
    assert bub_cron(place, "remove", "water").exit_code == 0


def test_exits_of_a_missing_and_of_a_faulty_file(place: Place, chat: Path) -> None:
    chat.write_text("reminders: [")
    done = bub_cron(place, "remove", "water")
    assert (done.exit_code, done.stderr.startswith(f"{chat}:1:13: ")) == (65, True)
    chat.unlink()
    os.unlink(place.paths.file)
    assert bub_cron(place, "remove", "water").exit_code == 66


def test_a_name_that_two_files_have_is_removed_from_the_one_of_chat(place: Place, chat: Path) -> None:
    chat.write_text(CHAT + "  pills: {to: 'telegram:7', timezone: UTC, every: 1h, text: Pills.}\n")
    assert bub_cron(place, "check").exit_code == 65
    assert bub_cron(place, "remove", "pills").exit_code == 0
    assert bub_cron(place, "check").exit_code == 0


@ROOT_ONLY
def test_one_that_cannot_be_written(place: Place, chat: Path) -> None:
    os.chown(chat.parent, 4242, 4242)
    os.chown(chat, 4242, 4242)
    chat.parent.chmod(0o555)
    os.seteuid(4242)
    try:
        done = bub_cron(place, "remove", "water")
    finally:
        os.seteuid(0)
    assert (done.exit_code, done.stderr) == (73, f"bub-cron: {chat} can't be written: Permission denied\n")
    assert chat.read_text() == CHAT


@ROOT_ONLY
def test_run_by_root_it_stays_its_owners(place: Place, chat: Path) -> None:
    os.chown(chat.parent, 4242, 4242)
    os.chown(chat, 4242, 4242)
    assert bub_cron(place, "remove", "water").exit_code == 0
    found = chat.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o777) == (4242, 4242, 0o600)


def test_a_shell_completes_the_names_of_those_made_in_chat(place: Place, chat: Path) -> None:
    words = {"COMP_WORDS": "bub-cron remove ", "COMP_CWORD": "2", "_BUB_CRON_COMPLETE": "bash_complete"}
    done = CliRunner().invoke(commands, prog_name="bub-cron", env={**place.environ, **words})
    assert done.stdout == "plain,take-the-cake-out\nplain,water\n"
