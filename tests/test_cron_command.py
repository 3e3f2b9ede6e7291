"""gateway/cron_command.py: `bub cron ...` is `bub-cron ...`, word for word."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import NoReturn

import pytest
import typer
from gateway_kit import PATIENCE, SCRIPTS, House
from typer.testing import CliRunner

from bub_cron.gateway import cron_command

FILE = 'defaults: {to: "telegram:1", timezone: UTC}\nreminders:\n  pills: {cron: "0 21 * * *", text: Pills.}\n'
TRIED: tuple[list[str], ...] = (
    [], ["--help"], ["-h"], ["list", "--json"], ["--", "x"], ["fire", "--", "-n"], ["--nosuch=1", "-xyz"], ["", "a b", "'", '"', "$x", "*"],
)  # fmt: skip


class Exec(Exception):
    def __init__(self, program: str, words: list[str], environ: dict[str, str]) -> None:
        self.program, self.words, self.environ = program, words, environ


def replaced(program: str, words: list[str], environ: dict[str, str]) -> NoReturn:
    raise Exec(program, words, environ)


@pytest.mark.parametrize("words", TRIED)
def test_every_word_is_passed_on_as_it_is(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    app = typer.Typer()
    app.command("other")(lambda: None)
    cron_command.add_cron_command(app)
    monkeypatch.setattr(os, "execve", replaced)
    end = CliRunner().invoke(app, ["cron", *words]).exception
    assert isinstance(end, Exec)
    assert (end.program, end.words) == (sys.executable, [sys.executable, "-P", "-m", "bub_cron", *words])


def bub(house: House, line: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell's with `bub` on its path."""
    return subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, timeout=PATIENCE, cwd=house.home,
        env={**house.environment, "PATH": f"{SCRIPTS}:{os.environ['PATH']}"},
    )  # fmt: skip


def test_a_real_bub_runs_the_real_commands(house: House) -> None:
    house.reminders.write_text(FILE)
    done = bub(house, "bub cron list")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == house.command("list", check=0).stdout
    done = bub(house, "bub cron fire nosuch; echo $?")
    assert done.stdout == "1\n"
    assert done.stderr.endswith("bub-cron: there is no reminder nosuch; `bub-cron list` shows those there are\n")
    done = bub(house, "bub cron next --help")
    assert done.stdout.startswith("Usage: bub-cron next [OPTIONS] [NAME]\n")
    assert "cron       Reminders on a schedule" in bub(house, "bub --help").stdout


def test_a_shells_quoting_reaches_it(house: House) -> None:
    house.reminders.write_text(FILE)
    odd = 'it\'s "$HOME" -- *'
    [said] = bub(house, f"bub cron fire {shlex.quote(odd)}").stderr.splitlines()
    assert odd in said


def test_what_only_a_dotenv_says_does_not_count(house: House) -> None:
    house.reminders.write_text(FILE)
    (house.home / ".env").write_text("BUB_CRON_FILE=/nowhere/reminders.yaml\n")
    done = bub(house, "bub cron check")
    assert done.returncode == 0
    assert str(house.reminders) in done.stdout
    assert "BUB_CRON_FILE stands only in .env" in done.stderr


def test_what_lies_in_the_working_directory_is_not_imported(house: House) -> None:
    house.reminders.write_text(FILE)
    (house.home / "yaml.py").write_text("raise SystemExit('imported from the working directory')\n")
    assert bub(house, f"{sys.executable} -P {SCRIPTS / 'bub'} cron check").returncode == 0


def test_the_module_calls_itself_as_the_script_does() -> None:
    done = subprocess.run([sys.executable, "-P", "-m", "bub_cron", "--nosuch"], capture_output=True, text=True)
    assert done.stderr.startswith("Usage: bub-cron [OPTIONS]")
