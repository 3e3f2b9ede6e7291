"""The Makefile, for somebody who has just come: how long it takes, that it is still at work, what to do next."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import demo

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    # As from a shell, also where these tests are run by make.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")
    }
    # Its output ends when the last process that may write to it has ended: one that is left behind would hold this up.
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def patiently(command: str) -> subprocess.CompletedProcess[str]:
    return make("EVERY=1", "--eval", f"try-it: ; @$(PATIENTLY) sh -c '{command}'; echo after", "try-it")


def test_a_quiet_command_is_seen_to_be_at_work() -> None:
    done = patiently("sleep 2.5")
    assert done.stdout.splitlines()[:2] == ["  still at it, 1 s", "  still at it, 2 s"]
    assert done.stdout.splitlines()[-1] == "after"
    assert patiently("true").stdout == "after\n"


def test_a_command_that_fails_fails_the_target() -> None:
    done = make("EVERY=1", "--eval", "try-it: ; @$(PATIENTLY) sh -c 'echo no >&2; exit 3'", "try-it")
    assert done.returncode == 2
    assert "Error 3" in done.stderr


def test_the_demo_says_first_how_long_it_takes_and_at_its_end_what_is_next() -> None:
    assert "The demo takes" in make("--dry-run", "demo").stdout.splitlines()[0]
    assert "about half a minute" in make("demo-begins").stdout
    assert "minutes" in make("demo-begins", "VENV=/nowhere").stdout
    assert "README.md" in demo.NEXT
    assert "pip install ." in demo.NEXT


def test_the_readme_names_targets_that_there_are() -> None:
    targets = {line.split()[0] for line in make("help").stdout.splitlines()}
    named = {line.split()[2] for line in README.splitlines() if line.startswith("$ make ")}
    assert named
    assert named <= targets
