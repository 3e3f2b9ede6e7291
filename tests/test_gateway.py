"""The main job on a real `bub gateway`, with the real agent loop and the real commands."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
from conftest import Held, Live
from gateway_kit import SCRIPTS, Gateway, House, until
from stand_in_model import Messages


def test_a_tick_brings_the_reply_to_the_right_chat(house: House) -> None:
    house.write_due({
        "standup": 'to: "testchat:room:7:a", prompt: What is new?',
        "pills": 'to: "testchat:bob", text: Time for your pills.',
    })
    house.gateway()
    assert house.command("tick", check=0).stdout == ""

    until(lambda: len(house.messages()) >= 2, "both messages")
    assert sorted(house.messages()) == [("bob", "Time for your pills."), ("room:7:a", "the model's reply")]
    until(lambda: set(house.outcomes().values()) == {"delivered"}, "both delivered")
    [standup] = house.log("standup")
    assert standup["id"] == f"standup@{standup['fire_time']}"
    assert (standup["attempts"], standup["sends"], standup["reply"]) == (1, 1, "the model's reply")
    assert standup["accepted_at"] is not None
    assert standup["finished_at"] is not None
    [prompt] = [message["content"] for message in house.model.conversations[0] if message["role"] == "user"]
    assert "channel=$testchat" in prompt
    assert "chat_id=room:7:a" in prompt
    assert prompt.endswith("What is new?")


def test_a_detached_framework_would_reach_no_chat_and_is_not_used(house: House) -> None:
    """The bug that this project grew from: a framework of the job's own runs the turn, and the reply goes nowhere."""
    code = """
import asyncio
from bub import BubFramework
from bub.channels import ChannelMessage
framework = BubFramework()
framework.load_hooks()
async def job():
    async with framework.running():
        message = ChannelMessage(session_id="testchat:1", channel="testchat", chat_id="1", content="hello")
        print((await framework.process_inbound(message)).model_output)
asyncio.run(job())
"""
    detached = subprocess.run(
        [sys.executable, "-c", code], env=house.environment, cwd=house.home, capture_output=True, text=True
    )
    assert detached.stdout.strip() == "the model's reply", "the turn runs and returns normally ..."
    assert house.messages() == [], "... and no chat hears of it"

    answers = house.gateway().ask(to="testchat:1", prompt="hello")
    assert [answer["status"] for answer in answers] == ["accepted", "delivered"]
    assert house.messages() == [("1", "the model's reply")]


@pytest.mark.parametrize(
    ("to", "why"),
    [
        ("nosuch:1", "this gateway has no channel nosuch"),
        ("off:1", "the channel off is installed but not enabled in this gateway"),
        ("telegram:1", "the channel telegram is installed but not enabled in this gateway"),
        ("mute:1", "the channel mute can't send: its class has no send() of its own"),
        ("cli:1", "the channel cli reaches no chat"),
        ("cron:1", "the channel cron reaches no chat"),
    ],
)
def test_what_cannot_be_delivered_is_said_before_a_model_is_run(live: Live, to: str, why: str) -> None:
    house, gateway, _ = live
    asked_before = len(house.model.conversations)
    for message in ({"prompt": "hello"}, {"text": "hello"}):
        accepted, last = gateway.ask(to=to, **message)
        assert accepted["status"] == "accepted"
        assert (last["status"], last["error"]) == ("undelivered", why)
    assert len(house.model.conversations) == asked_before


def test_the_gateway_down_then_up(house: House) -> None:
    house.write_due({"pills": 'to: "testchat:1", text: Pills.'})
    down = house.command("tick", check=69)
    assert "no gateway listens at" in down.stderr
    assert house.command("tick", check=69).stderr == "", "the same trouble is said once an hour"
    [firing] = house.log()
    assert firing["outcome"] == "due"

    house.gateway()
    house.command("tick", check=0)
    until(lambda: house.outcomes()[firing["id"]] == "delivered", "the firing delivered")
    assert house.messages() == [("1", "Pills.")]


def test_two_ticks_at_once_fire_each_firing_once(house: House) -> None:
    house.write_due({f"r{number}": f'to: "testchat:{number}", text: Hello.' for number in range(30)})
    house.gateway()
    ticks = [subprocess.Popen([sys.executable, "-m", "bub_cron", "tick"], env=house.environment) for _ in range(4)]
    assert [tick.wait(60) for tick in ticks] == [0, 0, 0, 0]
    until(lambda: set(house.outcomes().values()) == {"delivered"}, "all delivered")
    assert sorted(house.messages()) == sorted((str(number), "Hello.") for number in range(30))


def test_the_same_id_runs_once_and_is_not_changed_by_other_content(live: Live) -> None:
    house, gateway, _ = live
    answers = [gateway.ask(id="thrice", to="testchat:thrice", text="once") for _ in range(3)]
    assert [answer[-1]["status"] for answer in answers] == ["delivered", "delivered", "delivered"]
    [other] = gateway.ask(id="thrice", to="testchat:thrice", text="twice")
    assert other["status"] == "rejected"
    assert gateway.ask(status="thrice")[0]["status"] == "delivered"
    assert [text for chat, text in house.messages() if chat == "thrice"] == ["once"]


def test_after_a_kill_a_turn_runs_again_a_refused_send_is_repeated_and_one_not_seen_is_not(
    house: House, held: Held
) -> None:
    gateway = house.gateway()
    with gateway.connect() as poke:
        poke.send(id="refused", to="testchat:refuse", prompt="hello")
        until(lambda: {"refused": "refuse"} in house.chat(), "the refused send")
        until(lambda: gateway.ask(status="refused")[0]["status"] == "retrying", "it waits")
        held.hold()
        poke.send(id="turn", to="testchat:1", prompt="hello")
        poke.send(id="send", to="testchat:hang", text="hello")
        until(lambda: len(house.model.conversations) == 2, "the turn under way")
        until(lambda: {"hangs": "hang"} in house.chat(), "the send under way")
        gateway.kill()
    held.let_go()
    house.release.touch()
    again = house.gateway()
    assert again.ask(status="send")[0]["status"] == "unknown"
    assert again.ask(status="turn")[0]["status"] == "retrying", "it waits its 30 s"
    turn = again.ask(id="turn", to="testchat:1", prompt="hello")[-1]
    assert (turn["status"], turn["attempts"]) == ("delivered", 2)
    refused = again.ask(id="refused", to="testchat:refuse", prompt="hello")[-1]
    assert (refused["status"], refused["attempts"]) == ("delivered", 1)
    assert len(house.model.conversations) == 3, "once for the refused one, and twice for the turn"
    assert {entry["id"]: entry["sends"] for entry in house.log()} == {"refused": 2, "turn": 1, "send": 1}
    assert house.messages_to("1") == ["the model's reply"]
    assert house.chat().count({"hangs": "hang"}) == 1


@pytest.mark.parametrize("with_signal", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_the_middle_of_a_turn_then_a_restart_brings_one_message_and_one_attempt(
    house: House, held: Held, with_signal: signal.Signals
) -> None:
    gateway = house.gateway()
    held.hold()
    with gateway.connect() as poke:
        poke.send(id="stopped", to="testchat:1", prompt="hello")
        assert poke.answer()["status"] == "accepted"
        until(lambda: house.model.conversations, "the turn under way")
        status = gateway.stop(with_signal)
        assert poke.rest() == [], "the caller's connection is closed"
    if with_signal is signal.SIGTERM:
        assert status == 0
    assert not house.socket.exists()
    [stopped] = house.log()
    assert (stopped["outcome"], stopped["attempts"]) == ("accepted", 0)
    held.let_go()
    last = house.gateway().ask(id="stopped", to="testchat:1", prompt="hello")[-1]
    assert (last["status"], last["attempts"]) == ("delivered", 1)
    assert house.messages() == [("1", "the model's reply")]


def test_nothing_starts_before_the_chats_have(house: House) -> None:
    gateway = house.gateway(wait=False, TESTCHAT_SLOW_START="1.5")
    until(house.socket.exists, "the socket")
    assert gateway.ask(to="testchat:1", text="early")[-1]["status"] == "delivered"
    assert [next(iter(entry)) for entry in house.chat()] == ["started", "chat_id"]


def test_the_model_is_told_who_delivers_its_reply(live: Live) -> None:
    live.held.text = "<no_reply/>"

    def system_prompt(**request: Any) -> str:
        live.gateway.ask(to="testchat:told", **request)
        [system] = [entry["content"] for entry in live.house.model.conversations[-1] if entry["role"] == "system"]
        return str(system)

    plain = system_prompt(prompt="hello", reminder="standup", attempts=1)
    assert "the reminder standup" in plain
    assert "your final reply is delivered to the chat for you" in plain
    assert "Do NOT also send it by a channel skill" in plain
    assert plain.index("response_instruct") < plain.index("reminder_instruct"), "it comes after what it overrides"
    assert "<no_reply/>" not in plain
    quiet = system_prompt(prompt="hello", quiet=True)
    assert "reply with exactly <no_reply/>" in quiet
    agent = system_prompt(prompt="hello", reply="agent")
    assert "NOT delivered" in agent
    assert "delivered to the chat for you" not in agent


def test_silence_needs_quiet_and_never_shows(live: Live) -> None:
    gateway, live.held.text = live.gateway, "<no_reply/>"
    assert gateway.ask(to="testchat:quiet", prompt="x", quiet=True)[-1]["status"] == "silent"
    failed = gateway.ask(to="testchat:quiet", prompt="x")[-1]
    assert (failed["status"], failed["error"]) == ("failed", "the whole reply was <no_reply/>, which needs quiet: true")
    live.held.text = "Nothing much. <no_reply/>"
    assert gateway.ask(to="testchat:quiet", prompt="x", quiet=True)[-1]["status"] == "delivered"
    assert live.house.messages_to("quiet") == ["Nothing much."]


def test_only_the_last_steps_text_is_the_reply(live: Live) -> None:
    call = {"index": 0, "id": "c1", "type": "function", "function": {"name": "no_such_tool", "arguments": "{}"}}

    def answer(messages: Messages) -> str | dict[str, Any]:
        if any(message["role"] == "tool" for message in messages):
            return "It is 42."
        return {"role": "assistant", "content": "Let me look it up.", "tool_calls": [call]}

    live.held.answer = answer
    last = live.gateway.ask(to="testchat:steps", prompt="x")[-1]
    assert (last["status"], last["reply"]) == ("delivered", "It is 42.")
    assert live.house.messages_to("steps") == ["It is 42."]


def test_commands_are_refused_by_default(live: Live) -> None:
    [refused] = live.gateway.ask(to="testchat:commands", command=",echo hello")
    assert refused["status"] == "rejected"
    assert "not allowed" in refused["error"]
    [prompt] = live.gateway.ask(to="testchat:commands", prompt=" ,echo hello")
    assert prompt["status"] == "rejected"
    assert live.house.messages_to("commands") == []


def test_allowed_commands_send_their_output(house: House) -> None:
    gateway = house.gateway(BUB_CRON_ALLOW_COMMANDS="true")
    assert gateway.ask(to="testchat:1", command=",echo from the shell")[-1]["status"] == "delivered"
    assert gateway.ask(to="testchat:1", command=",true")[-1]["status"] == "ran"
    assert gateway.ask(to="testchat:1", command="echo no prefix")[-1]["status"] == "rejected"
    assert house.messages() == [("1", "from the shell")]
    assert house.model.conversations == []


def test_a_second_gateway_waits_and_takes_over(house: House) -> None:
    first = house.gateway()
    second = house.gateway(wait=False)
    second.wait_for_log("cron.waiting")
    assert first.ask(ping=True)[0]["pid"] == first.process.pid
    first.stop()
    second.wait_until_ready()
    assert second.ask(ping=True)[0]["pid"] == second.process.pid


def test_bub_chat_takes_no_socket(house: House) -> None:
    chat = Gateway(house, {}, ("chat", "hello"))
    try:
        until(lambda: house.model.conversations or chat.process.poll() is not None, "the chat's turn")
        assert not house.socket.exists()
    finally:
        chat.kill()


def test_ping_tells_who_is_there(live: Live) -> None:
    gateway = live.gateway
    [pong] = gateway.ask(ping=True)
    assert pong["status"] == "pong"
    assert pong["pid"] == gateway.process.pid
    assert pong["channels"] == ["sink", "testchat"]
    assert (pong["waiting"], pong["running"]) == (0, 0)


@pytest.mark.parametrize("program", ["nc", "socat"])
def test_pokes_by_hand(live: Live, program: str) -> None:
    house = live.house
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    address = str(house.socket)
    command = ["nc", "-NU", address] if program == "nc" else ["socat", "-t", "600", "-", f"UNIX-CONNECT:{address}"]
    poke = json.dumps({"to": f"testchat:{program}", "text": "hello"}) + "\n"
    done = subprocess.run(command, input=poke, capture_output=True, text=True, timeout=60)
    first, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert first == {"id": first["id"], "status": "accepted"}
    assert first["id"].startswith("poke-")
    assert list(last) == ["id", "status", "seconds"]
    assert last["status"] == "delivered"
    assert (program, "hello") in house.messages()


def test_fire_and_send_show_the_outcome_and_the_reply(live: Live) -> None:
    house = live.house
    house.reminders.write_text(
        'reminders:\n  standup: {cron: "0 9 * * *", to: "testchat:fire", prompt: New?, enabled: false}\n'
    )
    fired = house.command("fire", "standup", check=0)
    assert fired.stderr.splitlines()[-1].startswith("delivered to testchat:fire in ")
    assert fired.stdout == "the model's reply\n"
    assert house.command("fire", "standup", "--no-wait", check=0).stderr.startswith("accepted for testchat:fire")
    sent = house.command("send", "--to", "testchat:send", "--text", "by hand", check=0)
    assert sent.stderr.startswith("delivered to testchat:send")
    assert ("send", "by hand") in house.messages()
    lost = house.command("send", "--to", "nosuch:1", "--text", "by hand", check=1)
    assert "this gateway has no channel nosuch" in lost.stderr
    house.command("send", "--to", "testchat:1", "--text", "x", "--socket", "/nowhere/cron.sock", check=69)


def test_fire_shows_on_a_terminal_that_the_turn_is_running_and_for_how_long(live: Live) -> None:
    house, _, held = live
    house.reminders.write_text('reminders:\n  standup: {cron: "0 9 * * *", to: "testchat:shown", prompt: New?}\n')
    held.hold()
    controller, terminal = pty.openpty()
    fire = subprocess.Popen(
        [SCRIPTS / "bub-cron", "fire", "standup"],
        env={**house.environment, "TERM": "xterm"}, stdin=terminal, stdout=terminal, stderr=terminal,
    )  # fmt: skip
    os.close(terminal)
    shown = ""
    while not re.search(r"it is running, [1-9]\.\d s", shown):
        shown += os.read(controller, 4096).decode()
    held.let_go()
    rest = ""
    with contextlib.suppress(OSError):  # the terminal's other side is closed: all has been read
        while chunk := os.read(controller, 4096):
            rest += chunk.decode()
    os.close(controller)
    assert fire.wait(60) == 0
    assert "the model's reply" in rest
    assert "delivered" in rest


def test_a_bad_setting_leaves_the_gateway_alone(house: House) -> None:
    gateway = house.gateway(wait=False, BUB_CRON_MAX_CONCURRENT="many")
    gateway.wait_for_log("cron.off")
    gateway.wait_for_log("started listening")
    time.sleep(0.2)
    assert gateway.process.poll() is None
    assert not house.socket.exists()


def test_the_agent_knows_what_was_said_in_its_name(house: House) -> None:
    gateway = house.gateway()
    gateway.ask(to="testchat:1", text="Time for your pills.")
    gateway.ask(to="testchat:1", prompt="Look it up.", session="elsewhere")
    gateway.ask(to="testchat:1", prompt="done")
    said = [(message["role"], message["content"]) for message in house.model.conversations[-1]]
    assert ("assistant", "Time for your pills.") in said
    assert said.count(("assistant", "the model's reply")) == 1, "what was said from the other session"
    gateway.ask(to="testchat:1", prompt="and now?")
    said = [(message["role"], message["content"]) for message in house.model.conversations[-1]]
    assert said.count(("assistant", "the model's reply")) == 2, "a turn of the chat's own session is there once"


def test_bub_chat_beside_a_gateway_leaves_it_the_socket(live: Live) -> None:
    house, gateway, _ = live
    before = len(house.model.conversations)
    chat = Gateway(house, {}, ("chat", "hello"))
    try:
        until(lambda: len(house.model.conversations) > before or chat.process.poll() is not None, "the chat's turn")
        assert gateway.ask(ping=True)[0]["pid"] == gateway.process.pid
    finally:
        chat.kill()
    assert gateway.ask(to="testchat:beside", text="still here")[-1]["status"] == "delivered"
