"""gateway/onboarding.py: what `bub onboard` asks for us and tells; with a real Bub on a terminal, and with answers at hand."""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from bub import inquirer
from gateway_kit import PATIENCE, SCRIPTS, House

from bub_cron.gateway import onboarding
from bub_cron.gateway.onboarding import ask

OK_FINDING = {"link": "trigger", "state": "ok", "text": "your bub-cron.timer runs the tick", "remedy": ""}
NO_TIMER = {
    "link": "trigger", "state": "broken", "text": "no timer and no crontab line of this user runs the tick", "remedy": "bub-cron install",
}  # fmt: skip


class Answers:
    """What somebody answers: the number of a choice, and yes or no; and what was proposed to them."""

    def __init__(self, choice: int, yes: bool) -> None:
        self._choice, self._yes = choice, yes
        self.proposed: list[object] = []

    def ask_select(self, message: str, choices: list[str], default: str = "") -> str:
        self.proposed.append(choices.index(default))
        return choices[self._choice]

    def ask_confirm(self, message: str, default: bool = False) -> bool:
        self.proposed.append(default)
        return self._yes


def answered(
    monkeypatch: pytest.MonkeyPatch, current: dict[str, Any], choice: int = 0, yes: bool = False
) -> tuple[dict[str, Any], list[object]]:
    answers = Answers(choice, yes)
    monkeypatch.setattr(inquirer, "ask_select", answers.ask_select)
    monkeypatch.setattr(inquirer, "ask_confirm", answers.ask_confirm)
    monkeypatch.setattr(onboarding, "_findings", lambda: [NO_TIMER])
    return ask(current), answers.proposed


@pytest.mark.parametrize(("choice", "value"), [(0, "prompt"), (1, "text"), (2, "off")])
def test_each_choice_is_a_value_of_the_setting(monkeypatch: pytest.MonkeyPatch, choice: int, value: str) -> None:
    assert answered(monkeypatch, {}, choice)[0] == {
        "cron": {"chat": value, "allow_commands": False, "allow_gates": False}
    }


@pytest.mark.parametrize(
    ("current", "proposed"),
    [
        ({}, [0, False, False]),
        ({"cron": None}, [0, False, False]),
        ({"cron": {"chat": "text", "allow_commands": True}}, [1, True, False]),
        ({"cron": {"allow_gates": True}}, [0, False, True]),
        ({"cron": yaml.safe_load("chat: off")}, [2, False, False]),
        ({"cron": {"chat": "nonsense", "allow_commands": "nonsense"}}, [0, False, False]),
    ],
)
def test_what_is_set_already_is_proposed(
    monkeypatch: pytest.MonkeyPatch, current: dict[str, Any], proposed: list[object]
) -> None:
    assert answered(monkeypatch, current)[1] == proposed


def test_other_keys_of_the_section_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    current = {"cron": {"keep_days": 7, "chat": "off"}, "model": "x"}
    assert answered(monkeypatch, current, yes=True)[0] == {
        "cron": {"keep_days": 7, "chat": "prompt", "allow_commands": True, "allow_gates": True}
    }
    assert current["cron"] == {"keep_days": 7, "chat": "off"}  # what was handed in is left alone


@pytest.mark.parametrize(
    ("findings", "said"),
    [
        ([OK_FINDING], "Timer: your bub-cron.timer runs the tick."),
        ([NO_TIMER], f"Timer: {NO_TIMER['text']}. To change that: bub cron install"),
        ([], "Reminders need a tick each minute. To have this machine run it: bub cron install"),
    ],
)
def test_it_ends_with_how_the_timer_stands(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], findings: list[dict[str, str]], said: str
) -> None:
    answers = Answers(0, False)
    monkeypatch.setattr(inquirer, "ask_select", answers.ask_select)
    monkeypatch.setattr(inquirer, "ask_confirm", answers.ask_confirm)
    monkeypatch.setattr(onboarding, "_findings", lambda: findings)
    monkeypatch.setenv("BUB_CRON_CHAT", "text")
    ask({})
    assert capsys.readouterr().out == (
        f"BUB_CRON_CHAT=text is set in the environment, and wins over the answer.\n{said}\n"
    )


def test_a_real_bub_onboard_asks_on_a_terminal_and_keeps_the_rest(house: House) -> None:
    config = house.home / ".bub" / "config.yml"  # whatever BUB_HOME says
    config.parent.mkdir()
    config.write_text("cron:\n  keep_days: 7\n  chat: off\n")
    shown = on_a_terminal(
        house, ["onboard", "cron"],
        [("Which reminders may the agent make", "\x1b[A\r"), ("run commands", "\r"), ("May a gate", "\r")],
    )  # fmt: skip
    assert "Timer: " in shown or "Reminders need a tick" in shown
    assert yaml.safe_load(config.read_text()) == {
        "cron": {"keep_days": 7, "chat": "text", "allow_commands": False, "allow_gates": False}
    }
    assert not Path(house.reminders).exists()


def on_a_terminal(house: House, words: list[str], steps: list[tuple[str, str]]) -> str:
    """Run `bub` on a terminal; type keys once what comes before them is shown, and return all that was shown."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [SCRIPTS / "bub", *words], stdin=theirs, stdout=theirs, stderr=theirs, cwd=house.home, start_new_session=True,
        env={**house.environment, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    shown, begin, seen_at = "", 0, 0.0
    deadline = time.monotonic() + PATIENCE * 2
    try:
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    got = os.read(ours, 65536)
                except OSError:  # it has ended
                    break
                # Where the cursor is, which a real terminal would tell.
                os.write(ours, b"\x1b[1;1R" * got.count(b"\x1b[6n"))
                shown += re.sub(r"\x1b\[[0-9;?=<>]*[A-Za-z]", "", got.decode(errors="replace"))
            if steps and steps[0][0] in shown[begin:]:
                seen_at = seen_at or time.monotonic()
                if time.monotonic() > seen_at + 1:  # it takes no keys in the moment in which it is drawn
                    for key in re.findall(r"\x1b\[.|.", steps.pop(0)[1], re.DOTALL):
                        os.write(ours, key.encode())
                        time.sleep(0.3)
                    begin, seen_at = len(shown), 0.0
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
        process.wait()
    assert steps == []
    return shown
