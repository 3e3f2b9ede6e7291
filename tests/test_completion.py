"""Shell completion, in real shells: commands, options, reminders' names, files."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from fake_gateway import Place
from gateway_kit import PATIENCE, SCRIPTS
from health_kit import FILE, NOON

NAMES = "defaults: {to: 'telegram:1'}\nreminders:\n" + "".join(
    f"  {name}: {{every: 1h, text: {name}}}\n" for name in ("pills", "pilates", "stand.up")
)
BASH = """
eval "$(bub-cron completion bash)"
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
compopt() { echo "compopt $*"; }
"$(complete -p bub-cron | sed 's/.*-F \\([^ ]*\\) .*/\\1/')" bub-cron
printf '%s\\n' "${COMPREPLY[@]}"
"""
ZSH = 'autoload -Uz compinit; compinit -u -D; eval "$(bub-cron completion zsh)"; print read""y\n'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path / "bub")
    made.write(NAMES, NOON)
    for name in ("BUB_CRON_FILE", "BUB_CRON_STATE", "BUB_CRON_SOCKET"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("BUB_HOME", str(made.home))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{SCRIPTS}:{os.environ['PATH']}")
    monkeypatch.setenv("TERM", "xterm")
    return made


def shell(*command: str) -> str:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


def bash(*words: str) -> list[str]:
    return shell("bash", "--norc", "-c", BASH, "bash", *words).split()


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        (["st"], ["status"]),
        (["status", "--js"], ["--json"]),
        (["wee"], ["week"]),
        (["week", "--af"], ["--after"]),
        (["log", "pil"], ["pills", "pilates"]),
        (["fire", ""], ["pills", "pilates", "stand.up"]),
        (["next", "x"], []),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["log", "--outcome", "deliv"], ["delivered"]),
        (["log", "--file", ""], ["compopt", "-o", "default"]),
        (["doctor", "--state", ""], ["compopt", "-o", "dirnames"]),
    ],
)
def test_bash(place: Place, words: list[str], completions: list[str]) -> None:
    assert bash("bub-cron", *words) == completions


def test_names_come_from_the_file_that_is_named(place: Place, tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(FILE.replace("pills", "vitamins"))
    assert bash("bub-cron", "log", "--file", str(tmp_path / "other.yaml"), "") == ["vitamins"]
    assert bash("bub-cron", "log", "--file", "/nowhere", "") == []


def test_of_a_broken_file_the_last_good_version_counts(place: Place) -> None:
    place.tick(NOON)
    place.write("reminders: [", NOON + 60)
    assert bash("bub-cron", "log", "pil") == ["pilates", "pills"]


def test_where_nothing_can_be_read_nothing_is_completed_and_nothing_said(place: Place) -> None:
    os.unlink(place.paths.file)
    os.makedirs(place.paths.state)
    Path(place.paths.ledger).write_bytes(b"nonsense")
    assert bash("bub-cron", "log", "") == []


def test_fish(place: Place) -> None:
    def fish(line: str) -> list[str]:
        return shell("fish", "-c", f'bub-cron completion fish | source; complete -C "{line}"').splitlines()

    assert fish("bub-cron log pil") == ["pilates", "pills"]
    [status] = fish("bub-cron stat")
    assert status.startswith("status\tShow how the gateway, the trigger and ")


def test_zsh(place: Place) -> None:
    """As a person has it: on a terminal, with the tabulator key."""
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    process, terminal = pty.fork()
    if process == 0:
        os.execvp("zsh", ["zsh", "-f", "-i"])  # noqa: S606
    shown = ""

    def wait_for(*words: str) -> None:
        nonlocal shown
        deadline = time.monotonic() + PATIENCE
        while not all(word in shown for word in words):
            assert time.monotonic() < deadline, shown
            if select.select([terminal], [], [], 1)[0]:
                shown += os.read(terminal, 65536).decode()

    try:
        os.write(terminal, ZSH.encode())
        wait_for("ready")
        os.write(terminal, b"bub-cron log pil\t")
        wait_for("pills", "pilates")
        assert "stand.up" not in shown
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(terminal)
