"""The keys before, during and after the turn on a real `bub gateway`: one turn for several chats, behind a gate, told to an
alert's chat and to a monitor; and a `kill -9` in the middle of a gate.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from gateway_kit import House, until
from monitor_kit import Monitor, listening
from test_crashes import settle, with_killer


@pytest.fixture
def monitor() -> Iterator[str]:
    with listening() as address:
        yield address


def test_one_firing_from_its_gate_to_its_ping(house: House, monitor: str) -> None:
    got = Monitor.got
    also = '"testchat:2", "nosuch:3"'
    common = f'to: "testchat:1", prompt: Urgent?, alert: "testchat:9", ping: "{monitor}", attempts: 1'
    house.write_due({
        "mail": f"{common}, gate: echo two mails, also: [{also}]",
        "none": f"{common}, gate: test -e /nowhere",
        "broken": f"{common}, gate: nosuchprogram",
        "tools": f"{common}, tools: []",
    })
    gateway = house.gateway(BUB_CRON_ALLOW_GATES="true")
    house.command("tick")
    until(lambda: len(got) >= 4 and len(house.messages()) >= 5, "four pings, three replies and two alerts")
    firings = {entry["reminder"]: entry for entry in house.log()}
    assert {name: (entry["outcome"], entry["reason"]) for name, entry in firings.items()} == {
        "mail": ("undelivered", "no_channel"), "none": ("skipped", "gate"), "broken": ("failed", "attempts"),
        "tools": ("delivered", None),
    }  # fmt: skip
    assert sorted(post[:2] for post in got) == [
        ("/secret-uuid", "delivered"), ("/secret-uuid", "skipped"), ("/secret-uuid/fail", "failed"), ("/secret-uuid/fail", "undelivered"),
    ]  # fmt: skip
    assert house.messages_to("2") == ["the model's reply"]
    assert house.messages_to("1") == ["the model's reply"] * 2
    told = sorted(house.messages_to("9"))
    assert told[0].startswith("The reminder broken, due ")
    assert "ended with 127" in told[0]
    assert "mail, due " in told[1]
    assert "no channel nosuch" in told[1]
    asked = [message["content"] for conversation in house.model.conversations for message in conversation]
    assert any("```\ntwo mails\n```" in str(text) for text in asked)
    states = {(message["kind"], message["to"]): message["state"] for message in firings["mail"]["messages"]}
    assert states == {
        ("reply", "testchat:1"): "delivered", ("copy", "testchat:2"): "delivered", ("copy", "nosuch:3"): "undelivered",
        ("alert", "testchat:9"): "delivered", ("ping", "ping"): "delivered",
    }  # fmt: skip
    assert "secret" not in gateway.log.read_text()
    assert "secret" not in house.command("log", "--json").stdout


GATE = "gate: echo run >> runs; echo two mails"
KILLED = [
    # step, the reminder's keys; the outcome, how often its gate ran, the messages, the pings
    ("before the gate", f"prompt: Urgent?, {GATE}", "delivered", 1, [("1", "the model's reply")], 0),
    ("after the gate is kept", f"prompt: Urgent?, {GATE}", "delivered", 1, [("1", "the model's reply")], 0),
    ("after the gate is kept", f'text: "Mail:", {GATE}', "delivered", 1, [("1", "Mail:\n\ntwo mails")], 0),
    ("after the final outcome", 'text: x, also: "testchat:2"', "delivered", 0, [("1", "x"), ("2", "x")], 0),
    ("before the send", 'text: x, also: "testchat:2"', "unknown", 0, [("2", "x")], 0),
    ("after the failure is kept", 'prompt: x, gate: exit 3, attempts: 1, alert: "testchat:9"', "failed", 0,
     [("9", "The reminder mail, due ")], 0),
    ("after the final outcome", "text: x, ping: PING", "delivered", 0, [("1", "x")], 1),
]  # fmt: skip


@pytest.mark.parametrize(("step", "keys", "outcome", "runs", "messages", "pings"), KILLED)
def test_a_kill_at_each_step(
    house: House, monitor: str, step: str, keys: str, outcome: str, runs: int,
    messages: list[tuple[str, str]], pings: int,
) -> None:  # fmt: skip
    got = Monitor.got
    house.write_due({"mail": f'to: "testchat:1", {keys.replace("PING", monitor)}'})
    killer = {**with_killer(house, step), "BUB_CRON_ALLOW_GATES": "true"}
    gateway = house.gateway(killer)
    house.command("tick")
    assert gateway.process.wait(60) == -signal.SIGKILL
    house.gateway(killer)  # which has struck
    assert settle(house) == {"mail": outcome}
    until(lambda: len(house.messages()) >= len(messages) and len(got) >= pings, "all that is due")
    found = sorted(house.messages())
    assert [chat for chat, _ in found] == [chat for chat, _ in messages]
    assert all(text.startswith(begins) for (_, text), (_, begins) in zip(found, messages, strict=True))
    assert len(got) == pings
    path = house.home / "runs"
    assert (len(path.read_text().splitlines()) if path.exists() else 0) == runs


def test_a_kill_in_the_middle_of_a_gate(house: House) -> None:
    gate = "echo run >> runs; test $(wc -l < runs) -gt 1 || exec sleep 20"
    house.write_due({"mail": f'to: "testchat:1", text: "Mail:", gate: {gate}, attempts: 2'})
    gateway = house.gateway(BUB_CRON_ALLOW_GATES="true")
    house.command("tick")
    until((house.home / "runs").exists, "the gate runs")
    gateway.kill()
    house.gateway(with_killer(house, ""), BUB_CRON_ALLOW_GATES="true")
    until(lambda: house.messages_to("1"), "the message")
    until(lambda: house.outcomes() and set(house.outcomes().values()) == {"delivered"}, "it is delivered")
    [entry] = house.log()
    assert (entry["attempts"], entry["sends"], house.messages_to("1")) == (2, 1, ["Mail:"])
    assert (house.home / "runs").read_text() == "run\nrun\n"


def test_what_the_ledger_ends_reaches_the_alerts_chat_and_the_monitor(house: House, monitor: str) -> None:
    got = Monitor.got
    keys = f'to: "testchat:1", text: hi, alert: "testchat:9", ping: "{monitor}"'
    house.reminders.write_text(f"reminders:\n  dentist: {{{keys}, at: 2020-01-01 08:00, timezone: Europe/Berlin}}\n")
    house.command("tick")  # no gateway yet: the alert waits, the ping doesn't
    assert (house.outcomes(), [post[:2] for post in got]) == (
        {"dentist@2020-01-01T07:00:00Z": "missed"},
        [("/secret-uuid/fail", "missed")],
    )
    house.gateway()
    house.command("tick")
    until(lambda: house.messages_to("9"), "the alert")
    house.command("tick")
    [told] = house.messages_to("9")
    assert told.startswith("The reminder dentist, due Wed 2020-01-01 08:00 Europe/Berlin, was missed: ")
    assert told.endswith(" To look: bub-cron log --id dentist@2020-01-01T07:00:00Z")
    assert (house.messages_to("1"), len(got)) == ([], 1)
