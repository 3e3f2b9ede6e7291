"""pings: what a real HTTP server gets, and what is said where it doesn't take it."""

import asyncio
import json
import logging
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_bub import (
    NOON,
    House,
    Play,
    elapsed,
    house,
    in_house,
    in_virtual_time,
    logged,
    now,
    open_inbox,
    says,
    settle,
)
from monitor_kit import Monitor, listening

from bub_cron.alerts import ping_address
from bub_cron.gateway import pings
from bub_cron.states import FINAL


@pytest.fixture
def monitor() -> Iterator[str]:
    with listening() as address:
        yield address


def test_each_outcome_has_its_address() -> None:
    ends = {outcome: ping_address("https://hc-ping.com/uuid/?a=b", outcome) for outcome in FINAL}
    good = "https://hc-ping.com/uuid/?a=b"
    assert ends == {
        "delivered": good, "silent": good, "ran": good, "skipped": good,
        **dict.fromkeys(("failed", "undelivered", "missed", "rejected"), "https://hc-ping.com/uuid/fail?a=b"),
        "unknown": "https://hc-ping.com/uuid/log?a=b",
    }  # fmt: skip


def test_one_post_with_the_outcome_as_its_body(monitor: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        asyncio.run(pings.post(ping_address(monitor, "failed"), "failed: why, ü"))
    assert Monitor.got == [("/secret-uuid/fail", "failed: why, ü", "bub-cron")]
    assert "secret-uuid" not in caplog.text


def test_many_pings_read_the_certificates_once_and_not_on_the_event_loop(
    monitor: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers: list[int] = []

    def read() -> ssl.SSLContext:
        readers.append(threading.get_ident())
        return ssl.create_default_context()

    async def many() -> None:
        await asyncio.gather(*(pings.post(monitor, "x") for _ in range(5)))

    monkeypatch.setattr(httpx, "create_ssl_context", read)
    # What a transport calls: it reads them itself unless it is given them.
    given = lambda verify, **_: verify if isinstance(verify, ssl.SSLContext) else read()
    monkeypatch.setattr("httpx._transports.default.create_ssl_context", given)
    pings._read_certificates.cache_clear()
    asyncio.run(many())
    assert len(Monitor.got) == 5
    assert len(readers) == 1
    assert readers[0] != threading.get_ident()
    pings._read_certificates.cache_clear()


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


# --- In the gateway

PINGED: list[tuple[dict[str, Any], Play, str, str]] = [
    # what is asked, what the model does; the outcome, the path of the ping
    ({"text": "x"}, says(""), "delivered", "/secret-uuid"),
    ({"prompt": "x", "quiet": True}, says(""), "silent", "/secret-uuid"),
    ({"prompt": "x", "reply": "agent"}, says(""), "ran", "/secret-uuid"),
    ({"prompt": "x", "gate": "false"}, says(""), "skipped", "/secret-uuid"),
    ({"prompt": "x"}, says(""), "failed", "/secret-uuid/fail"),
    ({"text": "x", "to": "nosuch:1"}, says(""), "undelivered", "/secret-uuid/fail"),
    ({"text": "x", "expires": 0}, says(""), "missed", "/secret-uuid/fail"),
    ({"text": "x", "to": "other:1"}, says(""), "unknown", "/secret-uuid/log"),
]


@pytest.mark.parametrize(("fields", "model", "outcome", "path"), PINGED)
@in_house()
async def test_a_monitor_hears_of_each_outcome_once(
    home: House, monitor: str, fields: dict[str, Any], model: Play, outcome: str, path: str
) -> None:
    home.model.always, home.other.always = model, RuntimeError("?")
    firing = await home.run(ping=monitor, **fields)
    await asyncio.sleep(60)
    assert firing.state == outcome
    assert Monitor.got == [(path, outcome, "bub-cron")]
    last = (await home.get()).messages[-1]
    assert (last.kind, last.to, last.state, last.sends) == ("ping", "ping", "delivered", 1)
    assert "secret-uuid" not in repr(firing) + json.dumps((await home.get()).answer())


@in_house()
async def test_a_ping_is_tried_three_times_and_changes_nothing(home: House, monitor: str) -> None:
    Monitor.status = 500
    with logged() as lines:
        firing = await home.run(text="x", ping=monitor, reminder="r", alert="other:9")
        assert firing.finished_at == now()
        tries = []
        for _ in range(40):
            await asyncio.sleep(1)
            tries.append(len(Monitor.got))
    assert [tries.index(number) for number in (1, 2, 3)] == [0, 5, 25]
    firing = await home.get()
    assert (firing.state, firing.error, home.other.texts) == ("delivered", None, [])
    ping = firing.messages[-1]
    assert (ping.state, ping.sends, ping.error) == ("undelivered", 3, "the ping was answered 500 Internal Server Error")
    assert [line for line in lines if "ping" in line]
    assert not [line for line in lines if "secret-uuid" in line]


@in_house()
async def test_nothing_waits_for_a_ping_that_hangs(home: House) -> None:
    hung: list[float] = []

    async def hangs(url: str, body: str) -> None:
        hung.append(elapsed())
        await asyncio.sleep(10)
        raise pings.PingRefusedError("the ping was not answered within 10 s")

    home.runner._sends._post = hangs
    for number in range(5):
        await home.run(id=str(number), text="x", ping="http://h/x", reminder="r")
    assert (await home.run(prompt="x", reminder="r")).finished_at == NOON
    await asyncio.sleep(100)
    assert hung == [0.0] * 5 + [15.0] * 5 + [45.0] * 5


@in_house()
async def test_what_a_ping_raises_is_told_without_the_address(home: House) -> None:
    async def broken(url: str, body: str) -> None:
        raise LookupError(url)

    home.runner._sends._post = broken
    with logged() as lines:
        await home.run(text="x", ping="http://h/secret-uuid")
        await asyncio.sleep(60)
    assert (await home.get()).messages[-1].error == "LookupError"
    assert not [line for line in lines if "secret-uuid" in line]


KILLED: list[tuple[list[str], int]] = [([], 1), (["begin"], 2), (["begin", "retry"], 2), (["begin", "deliver"], 1)]


@pytest.mark.parametrize(("events", "sends"), KILLED)
@in_virtual_time
async def test_a_ping_that_is_due_survives_a_kill(tmp_path: Path, monitor: str, events: list[str], sends: int) -> None:
    async with open_inbox(tmp_path) as inbox:
        firing = await inbox.put("running", ping=monitor)
        firing = await inbox.move(firing, "be_silent", NOON)
        for event in events:
            firing = await inbox.move_message(firing, firing.messages[-1], event, NOON)
    async with house(tmp_path, recover=True) as home:
        await asyncio.sleep(60)
        ping = (await home.get()).messages[-1]
    assert (ping.state, ping.sends) == ("delivered", sends)
    assert len(Monitor.got) == (0 if "deliver" in events else 1)


@in_virtual_time
async def test_a_stop_in_the_middle_of_a_ping_leaves_it_to_the_next_start(tmp_path: Path, monitor: str) -> None:
    async def hangs(url: str, body: str) -> None:
        await asyncio.Event().wait()

    async with house(tmp_path) as home:
        home.runner._sends._post = hangs
        await home.run(text="x", ping=monitor)
        await settle()
    async with house(tmp_path, recover=True) as home:
        await asyncio.sleep(60)
        assert (await home.get()).messages[-1].state == "delivered"
    assert [path for path, *_ in Monitor.got] == ["/secret-uuid"]
