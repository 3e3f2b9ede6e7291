"""`bub-cron chats` on a real gateway: what users wrote to it, also before its last restart."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from chat_kit import ChatHouse
from click.testing import CliRunner
from fake_gateway import Place
from gateway_kit import until

from bub_cron.cli import commands
from bub_cron.paths import find_paths


@pytest.fixture
def house() -> Iterator[ChatHouse]:
    with closing(ChatHouse()) as made:
        yield made


def chats(house: ChatHouse) -> list[str]:
    lines = house.command("chats", "--json", check=0).stdout.splitlines()
    return [json.loads(line)["to"] for line in lines]


def test_the_chats_of_a_gateway(house: ChatHouse) -> None:
    gateway = house.gateway()
    empty = house.command("chats", check=0)
    assert empty.stdout == ""
    assert "no chat has written to this gateway yet" in empty.stderr
    for chat_id in ("41", "42"):
        house.write(chat_id, f"hello from {chat_id}")
        house.wait_for_the_end(f"hello from {chat_id}")
    assert chats(house) == ["testchat:42", "testchat:41"]
    # What bub-cron itself sends there is no message from there.
    house.command("send", "--to", "testchat:43", "--text", "x", check=0)
    shown = house.command("chats", check=0, TZ="Europe/Berlin").stdout.splitlines()
    assert shown[0].split() == ["to", "last", "message", "(Europe/Berlin)"]
    assert [line.split()[0] for line in shown[1:]] == ["testchat:42", "testchat:41"]
    assert gateway.stop() == 0
    house.gateway()
    assert chats(house) == ["testchat:42", "testchat:41"]


def test_a_killed_gateway_knows_what_it_had_written_down(house: ChatHouse) -> None:
    gateway = house.gateway()
    house.write("7", "hello")
    house.wait_for_the_end("hello")
    until(lambda: "testchat:7" in stored(house), "the row of the chat", seconds=60)
    gateway.kill()
    house.gateway()
    assert chats(house) == ["testchat:7"]


def stored(house: ChatHouse) -> list[str]:
    with closing(sqlite3.connect(find_paths({"BUB_HOME": str(house.home)}).inbox)) as inbox:
        return [to for (to,) in inbox.execute('SELECT "to" FROM chats')]


def test_without_a_gateway(path: Path) -> None:
    done = CliRunner().invoke(commands, ["chats"], env={"BUB_HOME": str(path)})
    assert (done.exit_code, done.stdout) == (69, "")
    assert done.stderr.startswith("bub-cron: no gateway listens at ")


@pytest.mark.parametrize("left_out", [0, 7])
def test_an_answer_that_was_cut_says_so(path: Path, left_out: int) -> None:
    place = Place(path)
    answer = {"status": "chats", "chats": [{"to": "telegram:1", "seen": "2026-12-01T07:30:00Z"}], "left_out": left_out}
    with place.gateway(lambda _: [answer]):
        done = CliRunner().invoke(commands, ["chats", "--json"], env=place.environ)
    assert (done.exit_code, done.stdout) == (0, '{"to": "telegram:1", "seen": "2026-12-01T07:30:00Z"}\n')
    assert done.stderr == ("7 more, which wrote longer ago, are left out\n" if left_out else "")


def test_a_gateway_of_an_earlier_version(path: Path) -> None:
    place = Place(path)
    with place.gateway(lambda _: [{"status": "rejected", "error": "unknown field 'chats'"}]):
        done = CliRunner().invoke(commands, ["chats"], env=place.environ)
    assert (done.exit_code, done.stdout) == (69, "")
    assert done.stderr == "bub-cron: the gateway does not tell its chats: unknown field 'chats'\n"
