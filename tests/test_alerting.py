"""trigger/alerting.py: who hears of what the ledger ends, once, whoever dies in between."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from fake_gateway import Message, Place, at, busy, firing
from monitor_kit import Monitor, listening

from bub_cron.trigger import alerting

DAY = "2026-11-23T"
NOON = at(DAY + "12:00:00")
MINUTE, HOUR = 60, 3600


def due(hour: str) -> str:
    """Return a fire time as the machine's clock shows it."""
    return f"{datetime.fromtimestamp(at(f'{DAY}{hour}:00')).astimezone():%a %Y-%m-%d %H:%M %Z}"


def missed(hour: str) -> str:
    return (
        f"The reminder a, due {due(hour)}, was missed: its grace was over before a tick ran."
        f" To look: bub-cron log --id a@2026-11-23T{hour}:00Z"
    )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "bub")


def file(*more: str, schedule: str = "every: 1h", name: str = "a") -> str:
    lines = [f"  {name}:", f"    {schedule}", "    text: hi", "    grace: 10m", *(f"    {key}" for key in more)]
    return "\n".join(["defaults: {to: 'telegram:1', timezone: UTC}", "reminders:", *lines, ""])


ALERT = "alert: telegram:99"


def begin(place: Place, *more: str, now: int = NOON - 30, **how: str) -> None:
    place.write(file(*more, **how), now)
    assert place.tick(now) == (0, "")


def alerts(requests: list[Message]) -> list[Message]:
    return [request for request in requests if request.get("id", "").startswith("alert-")]


def texts(requests: list[Message]) -> list[str]:
    return [request["text"] for request in alerts(requests)]


def open_tellings(place: Place) -> list[tuple[Any, ...]]:
    return place.select("SELECT firing, kind, tries FROM tellings ORDER BY 1, 2")


def refuse(error: str) -> Any:
    """Make a script that rejects firings, and takes alerts as a good gateway does."""

    def script(request: Message) -> list[Message] | None:
        is_firing = "id" in request and not request["id"].startswith("alert-")
        return [{"id": request["id"], "status": "rejected", "error": error}] if is_firing else None

    return script


# --- Alerts


def test_a_missed_firing_is_told_to_the_alerts_chat(place: Place) -> None:
    begin(place, ALERT)
    with place.gateway() as gateway:
        assert place.tick(NOON + HOUR - MINUTE) == (0, "")
    assert place.states() == {firing("a", DAY + "12:00:00"): "missed"}
    assert gateway.requests == [
        {
            "id": "alert-a@2026-11-23T12:00:00Z/missed", "to": "telegram:99", "wait": False,
            "text": missed("12:00"),
        }
    ]  # fmt: skip
    assert open_tellings(place) == []


@pytest.mark.parametrize("more", [(), ("alert: none",), ("context: {alert: x, ping: y}",)])
def test_without_an_alert_the_ledger_tells_nobody(place: Place, more: tuple[str, ...]) -> None:
    begin(place, *more)
    with place.gateway() as gateway:
        place.tick(NOON + HOUR - MINUTE)
    assert gateway.requests == []
    assert open_tellings(place) == []


def test_an_alert_is_kept_until_a_gateway_has_it(place: Place) -> None:
    begin(place, ALERT)
    status, said = place.tick(NOON + 30 * MINUTE)
    assert (status, said.splitlines()[-1]) == (69, "bub-cron: 1 alert waits for it")
    kept = [(firing("a", DAY + "12:00:00"), "alert", 0)]
    assert open_tellings(place) == kept
    for script, leave_after in ((busy, None), (None, 1)):
        with place.gateway(script, leave_after=leave_after):
            assert place.tick(NOON + 32 * MINUTE)[0] == 69
        assert open_tellings(place) == kept
    with place.gateway() as gateway:
        assert place.tick(NOON + 33 * MINUTE)[0] == 0
    assert texts(gateway.requests) == [missed("12:00")]
    with place.gateway() as gateway:
        assert place.tick(NOON + 34 * MINUTE)[0] == 0
    assert gateway.requests == []


def test_an_alert_is_told_once_until_a_firing_was_accepted(place: Place) -> None:
    begin(place, ALERT)
    told = []
    for hour in range(12, 18):
        with place.gateway() as gateway:
            gateway.knows_all = True
            place.tick(at(f"{DAY}{hour}:{'00' if hour == 15 else '30'}:00"))
        told += [request["id"] for request in alerts(gateway.requests)]
    assert told == ["alert-a@2026-11-23T12:00:00Z/missed", "alert-a@2026-11-23T16:00:00Z/missed"]


def test_an_alert_that_came_later_is_told_as_well(place: Place) -> None:
    begin(place)
    place.tick(NOON + 30 * MINUTE)
    place.write(file(ALERT), NOON + 31 * MINUTE)
    with place.gateway() as gateway:
        place.tick(NOON + 90 * MINUTE)
    assert [request["id"] for request in alerts(gateway.requests)] == ["alert-a@2026-11-23T13:00:00Z/missed"]


def test_each_outcome_is_told(place: Place) -> None:
    begin(place, ALERT)
    with place.gateway(refuse("gates are not allowed, key sk-abcdefghijkl0123")) as gateway:
        assert place.tick(NOON)[0] == 76
        assert place.tick(NOON + HOUR)[0] == 76
        place.tick(NOON + HOUR + 59 * MINUTE)
        place.tick(NOON + 2 * HOUR + 30 * MINUTE)
    why = f"The reminder a, due {due('12:00')}, was rejected by the gateway: gates are not allowed, key [...]."
    assert texts(gateway.requests) == [
        f"{why} To look: bub-cron log --id a@2026-11-23T12:00:00Z",
        missed("14:00"),
    ]


def test_a_lost_record_is_told(place: Place) -> None:
    begin(place, ALERT)
    with place.gateway():
        place.tick(NOON)
    with place.gateway() as gateway:  # another inbox
        place.tick(NOON + HOUR)
    assert gateway.asked == [firing("a", DAY + "12:00:00")]
    assert texts(gateway.requests) == [
        f"The reminder a, due {due('12:00')}, may not have arrived: the gateway accepted it, and its inbox doesn't know"
        " it any more: what became of it is not known. To look: bub-cron log --id a@2026-11-23T12:00:00Z"
    ]


def test_a_reminder_that_works_again_is_told_once(place: Place) -> None:
    begin(place, ALERT)
    outcomes = {"13": "delivered", "14": "delivered", "16": "failed", "17": "delivered"}
    told = []

    def script(request: Message) -> list[Message] | None:
        hour = request["status"][13:15] if "status" in request else ""
        return [{"id": request["status"], "status": outcomes[hour]}] if hour in outcomes else None

    for clock in ("12:30", "13:00", "14:00", "15:30", "16:00", "17:00", "18:00"):
        with place.gateway(script) as gateway:
            place.tick(at(f"{DAY}{clock}:00"))
        told += [request["id"] for request in alerts(gateway.requests)]
        if clock == "14:00":
            assert texts(gateway.requests) == ["The reminder a works again."]
    # What failed at 16:00 is the gateway's to tell of, and so is that it works again.
    day = "alert-a@2026-11-23T"
    assert told == [f"{day}12:00:00Z/missed", f"{day}13:00:00Z/accepted", f"{day}15:00:00Z/missed"]


def test_a_crowd_is_told_once_with_its_count(place: Place) -> None:
    begin(place, ALERT, schedule="every: 1m")
    with place.gateway() as gateway:
        place.tick(NOON + 1500 * MINUTE)
    [text] = texts(gateway.requests)
    assert "was missed: 501 fire times passed while no tick ran. To look: bub-cron log --id" in text


def test_a_paused_firing_is_told_to_nobody(place: Place) -> None:
    begin(place, ALERT, "pause_until: 2026-12-01")
    with place.gateway() as gateway:
        place.tick(NOON + HOUR - MINUTE)
    assert set(place.states().values()) == {"skipped"}
    assert gateway.requests == []


def test_what_a_clock_that_was_ahead_found_missed_is_told_to_nobody(place: Place) -> None:
    begin(place, ALERT)
    assert place.tick(NOON + 30 * MINUTE)[0] == 69
    assert len(open_tellings(place)) == 1
    with place.gateway() as gateway:
        place.tick(NOON)
    assert place.states() == {firing("a", DAY + "12:00:00"): "accepted"}
    assert alerts(gateway.requests) == []
    assert open_tellings(place) == []


def test_an_alert_never_has_the_id_of_a_firing(place: Place) -> None:
    begin(place, ALERT)
    place.write(file(ALERT) + file(name="alert-a").split("reminders:\n")[1], NOON - 20)
    place.tick(NOON - 10)
    with place.gateway() as gateway:
        place.tick(NOON + 9 * MINUTE)  # alert-a is submitted, and so is a
        place.tick(NOON + 99 * MINUTE)  # both are missed
    assert "alert-a@2026-11-23T12:00:00Z" in gateway.taken
    told = [request for request in alerts(gateway.requests) if request["to"] == "telegram:99"]
    assert texts(told) == [missed("13:00")]


def test_an_alert_that_the_gateway_rejects_is_said_and_given_up(place: Place) -> None:
    begin(place, ALERT)

    def reject(request: Message) -> list[Message]:
        return [{"id": request["id"], "status": "rejected", "error": "no"}]

    with place.gateway(reject):
        status, said = place.tick(NOON + 30 * MINUTE)
    assert (status, said) == (
        76,
        "bub-cron: the gateway rejected the alert about a@2026-11-23T12:00:00Z: no\n",
    )
    assert open_tellings(place) == []


def test_what_is_pruned_is_told_no_more(place: Place) -> None:
    begin(place, ALERT)
    place.tick(NOON + 30 * MINUTE)
    for day in range(1, 33):
        place.tick(NOON + day * 24 * HOUR + 30 * MINUTE)
    assert {row[0] for row in open_tellings(place)} <= set(place.states())


# --- Kills

KILL = """
import os, signal, sys
from bub_cron.paths import find_paths
from bub_cron.trigger import alerting, client, tick
def strike(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
def write(self, lines, on_answer):
    if lines: self._socket.sendall(b''.join(lines)); self._socket.recv(1); strike()
def refrain(self, lines, on_answer):
    if lines: strike()
{}
tick.run(find_paths(), float(sys.argv[1]))
"""
STEPS = {
    "noted, not submitted": "alerting.submit_alerts = strike",
    "before the line is written": "client.Connection.exchange = refrain",
    "submitted, the answer not read": "client.Connection.exchange = write",
    "answered, not crossed out": "alerting.cross_out = strike",
    "before the ping": "alerting._post_all = strike",
    "pinged, not crossed out": (
        "post = alerting._post_all\ndef post_all(pings): post(pings); strike()\nalerting._post_all = post_all"
    ),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_tick_killed_in_between(place: Place, monitor: str, step: str) -> None:
    begin(place, ALERT, f"ping: {monitor}")
    with place.gateway() as gateway:
        killed = subprocess.run(
            [sys.executable, "-c", KILL.format(STEPS[step]), str(NOON + 30 * MINUTE)],
            env={**os.environ, **place.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, timeout=60, check=False,
        )  # fmt: skip
        assert killed.returncode == -signal.SIGKILL
        assert open_tellings(place)
        assert place.tick(NOON + 31 * MINUTE) == (0, "")
        assert place.tick(NOON + 32 * MINUTE) == (0, "")
    assert [one for one in gateway.taken if one.startswith("alert-")] == ["alert-a@2026-11-23T12:00:00Z/missed"]
    assert [post.path for post in Monitor.got] == ["/secret-uuid/fail"] * (2 if step.startswith("pinged") else 1)
    assert open_tellings(place) == []


# --- Pings


@pytest.fixture
def monitor() -> Iterator[str]:
    with listening() as address:
        yield address


ENDS = [
    ("missed", ("",), None, "/secret-uuid/fail"),
    ("rejected", (), refuse("no"), "/secret-uuid/fail"),
    ("skipped", ("", "pause_until: 2026-12-01"), None, "/secret-uuid"),
]


@pytest.mark.parametrize(("outcome", "more", "script", "path"), ENDS)
def test_each_outcome_has_its_ping(
    place: Place, monitor: str, outcome: str, more: tuple[str, ...], script: Any, path: str
) -> None:
    begin(place, f"ping: {monitor}", *more[1:])
    with place.gateway(script):
        status, said = place.tick(NOON + (30 * MINUTE if outcome == "missed" else 0))
    assert set(place.states().values()) == {outcome}
    assert [post[:2] for post in Monitor.got] == [(path, outcome)]
    assert open_tellings(place) == []
    assert (status, "secret-uuid" in said) == (76 if outcome == "rejected" else 0, False)


def test_a_lost_record_is_pinged_as_a_log(place: Place, monitor: str) -> None:
    begin(place, f"ping: {monitor}")
    with place.gateway():
        place.tick(NOON)
    assert Monitor.got == []  # it is the gateway's
    with place.gateway():
        place.tick(NOON + HOUR)
    assert [post[:2] for post in Monitor.got] == [("/secret-uuid/log", "unknown")]


def test_a_ping_needs_no_gateway_and_is_tried_three_times_in_three_ticks(place: Place, monitor: str) -> None:
    begin(place, f"ping: {monitor}")
    Monitor.status = 500
    said = []
    for minute in range(11, 16):
        status, text = place.tick(NOON + (20 + minute) * MINUTE)
        assert status == 0
        said.append(text)
    given_up = "bub-cron: the ping about a@2026-11-23T12:00:00Z was given up after 3 tries: answered 500\n"
    assert said == ["", "", given_up, "", ""]
    assert len(Monitor.got) == 3
    assert open_tellings(place) == []


def test_of_those_that_end_together_the_newest_is_pinged(place: Place, monitor: str) -> None:
    begin(place, f"ping: {monitor}", schedule="every: 1m")
    place.tick(NOON + 30 * MINUTE)
    assert [row[:2] for row in Monitor.got] == [("/secret-uuid/fail", "missed")]


def test_a_monitor_that_hangs_delays_no_firing_and_costs_a_tick_its_seconds(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerting, "PING_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        address = f"http://127.0.0.1:{hanging.getsockname()[1]}/secret-uuid"
        begin(place, ALERT, f"ping: {address}")
        accepted: list[float] = []
        with place.gateway(on_line=lambda _: accepted.append(time.monotonic())):
            for tick in range(3):
                began = time.monotonic()
                _, said = place.tick(NOON + HOUR - 3 * MINUTE + tick * MINUTE)
                assert 0.4 < time.monotonic() - began < 5
        assert (
            said
            == "bub-cron: the ping about a@2026-11-23T12:00:00Z was given up after 3 tries: not answered within 0.5 s\n"
        )
    assert accepted, "the alert went before the ping"


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:9/secret-uuid", "http://secret-uuid.invalid/x", "http://127.0.0.1:9/secret-uuid?a=b"]
)
def test_what_goes_wrong_is_said_without_the_address(place: Place, address: str) -> None:
    begin(place, f"ping: {address}")
    said = "".join(place.tick(NOON + (30 + minute) * MINUTE)[1] for minute in range(3))
    assert "was given up after 3 tries: " in said
    assert "secret-uuid" not in said


def test_a_damaged_row_is_damage(place: Place) -> None:
    begin(place, ALERT)
    place.tick(NOON + 30 * MINUTE)
    content = json.dumps({"alert": "telegram:9"})
    with sqlite3.connect(place.paths.ledger) as ledger:
        ledger.execute("UPDATE firings SET content = ?", (content,))
    with place.gateway():
        status, said = place.tick(NOON + 31 * MINUTE)
    assert status == 74
    assert "a firing that has ended" in said


@pytest.mark.parametrize("kept", [-1, -(2**63), 4, 1.5, "1x", b"1"])
def test_what_no_tick_writes_is_refused_by_the_table(place: Place, kept: object) -> None:
    begin(place)
    with closing(sqlite3.connect(place.paths.ledger)) as ledger, pytest.raises(sqlite3.IntegrityError):
        ledger.execute("INSERT INTO tellings VALUES ('a', 'ping', ?)", (kept,))
