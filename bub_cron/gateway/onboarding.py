"""The section `cron` of `bub onboard`.

Invariants: it asks and tells, and writes nothing; what else stands in the section stays.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import typer
from bub import inquirer

from bub_cron.gateway.environment import gateway_environ
from bub_cron.gateway.settings import OFF, PROMPT, TEXT

_CHAT = {
    PROMPT: "any: a text, or a prompt that runs the agent each time",
    TEXT: "texts only: no model runs for them",
    OFF: "none",
}
_PATIENCE_SECONDS = 60


def ask(current_config: Mapping[str, Any]) -> dict[str, Any]:
    """Ask what an operator has to decide, tell how the timer stands, and return the section with the answers."""
    given = current_config.get("cron")
    section = dict(given) if isinstance(given, Mapping) else {}
    chat = OFF if section.get("chat") is False else section.get("chat")
    chosen = inquirer.ask_select(
        "Which reminders may the agent make in chat?", list(_CHAT.values()), default=_CHAT.get(str(chat), _CHAT[PROMPT])
    )
    section["chat"] = next(value for value, words in _CHAT.items() if words == chosen)
    section["allow_commands"] = inquirer.ask_confirm(
        "May reminders of your own file run commands (Bub's, or the shell's)?",
        default=section.get("allow_commands") is True,
    )
    section["allow_gates"] = inquirer.ask_confirm(
        "May a gate, a command of this user, decide whether a reminder runs?",
        default=section.get("allow_gates") is True,
    )
    for name in ("BUB_CRON_CHAT", "BUB_CRON_ALLOW_COMMANDS", "BUB_CRON_ALLOW_GATES"):
        if os.environ.get(name):
            typer.echo(f"{name}={os.environ[name]} is set in the environment, and wins over the answer.")
    typer.echo(_of_timer())
    return {"cron": section}


def _of_timer() -> str:
    """Say what runs the tick on this machine, or how to have it run."""
    findings = [finding for finding in _findings() if finding.get("link") == "trigger"]
    if not findings:
        return "Reminders need a tick each minute. To have this machine run it: bub cron install"
    return "\n".join(
        f"Timer: {finding['text']}."
        if finding["state"] == "ok"
        else f"Timer: {finding['text']}. To change that: {finding['remedy'].replace('bub-cron', 'bub cron')}"
        for finding in findings
    )


def _findings() -> list[dict[str, str]]:
    """Return what `bub-cron doctor` finds: a plugin of the gateway knows nothing of timers itself."""
    command = [sys.executable, "-P", "-m", "bub_cron", "doctor", "--json"]
    try:
        done = subprocess.run(
            command, env=gateway_environ(), stdin=subprocess.DEVNULL, capture_output=True, timeout=_PATIENCE_SECONDS
        )
        return [json.loads(line) for line in done.stdout.splitlines()]
    except (OSError, subprocess.TimeoutExpired, ValueError):
        return []
