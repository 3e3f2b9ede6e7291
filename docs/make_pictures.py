"""Write the pictures of the README: what commands print, as SVG. `make pictures` runs it.

The commands are the real ones, in a terminal of 80 columns, over a house that is always the same: its files, its stores, a
gateway of the tests' kind that answers, and a clock that stands still.

Invariants: the same program makes the same pictures, on any machine and at any time. tests/test_pictures.py holds them
against the program.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from contextlib import redirect_stdout, suppress
from html import escape
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import pytest
from fake_gateway import Place, at, firing
from health_kit import Programs, answering
from rich.console import Console
from rich.text import Text

from bub_cron.cli import commands

WIDTH = 80
COMMANDS = ("list", "next", "week", "log", "status")
NOW = at("2026-12-03T11:12:20")  # a Thursday; 12:12 in Berlin
FILE = """\
defaults: {to: 'telegram:123456789', timezone: Europe/Berlin}
calendars:
  workdays: {weekdays: mon-fri}
reminders:
  standup: {cron: "0 9 * * *", only: workdays, prompt: Summarise what changed in the repository since yesterday.}
  pills: {cron: "0 21 * * *", text: Time for your pills.}
  dentist: {at: 2026-12-08 08:30, text: Dentist at 10:00.}
  mail: {every: 30m, quiet: true, prompt: Anything urgent among my mail?}
"""
SUMMARY = "Two commits since yesterday: the parser is faster, and a test was added."
REFUSED = "telegram refused it: Forbidden: bot was blocked by the user"
# The shapes are rich's own, without its fonts from the network: every cell has its width.
FORMAT = """\
<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, monospace; font-size: {char_height}px; \
line-height: {line_height}px; }}
.{unique_id}-title {{ font-family: system-ui, sans-serif; font-size: 18px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" />
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


class Terminal(io.StringIO):
    """What a command prints to is a terminal for it."""

    def isatty(self) -> bool:
        return True


def furnish(directory: Path, patch: pytest.MonkeyPatch) -> Place:
    """Make the house, and have the environment and the clock of this process lead to it."""
    place = Place(directory / "bub")
    Programs(directory, patch).timer(place.paths)
    for name in ("NO_COLOR", "FORCE_COLOR", "COLORTERM", "BUB_CRON_TRUST_DIRS"):
        patch.delenv(name, raising=False)
    for name, value in {
        "BUB_HOME": str(place.home),
        "TZ": "Europe/Berlin",
        "TERM": "xterm",
        "COLUMNS": str(WIDTH),
    }.items():
        patch.setenv(name, value)
    time.tzset()
    patch.setattr("time.time", lambda: float(NOW))
    place.write(FILE, NOW - 180)
    for now in (NOW - 80, NOW - 20):
        assert place.tick(now) == (0, "")
    for day in ("2026-11-30", "2026-12-01", "2026-12-02"):
        fired(place, "standup", f"{day}T08:00:00", "delivered", reply=SUMMARY)
        fired(place, "pills", f"{day}T20:00:00", "delivered", request='{"text": "Time for your pills."}')
    fired(place, "standup", "2026-12-03T08:00:00", "undelivered", reply=SUMMARY, error=REFUSED, reason="refused")
    for clock in ("10:00", "10:30", "11:00"):
        fired(place, "mail", f"2026-12-03T{clock}:00", "silent")
    return place


def fired(place: Place, name: str, fire_time: str, outcome: str, **columns: object) -> None:
    """Record a firing that has its outcome."""
    begun = at(fire_time) + 1
    place.fill_inbox(
        id=firing(name, fire_time), reminder=name, fire_time=f"{fire_time}Z", accepted_at=begun, state=outcome,
        finished_at=begun + 4, attempts=1, **columns,
    )  # fmt: skip


def shown(command: str) -> str:
    """Run a command; return what it prints on a terminal."""
    out = Terminal()
    with redirect_stdout(out), suppress(SystemExit):  # some say by it that something needs fixing
        commands([command], prog_name="bub-cron", standalone_mode=False)
    return out.getvalue()


def picture(command: str, printed: str) -> str:
    """Return an SVG of a terminal in which a command was typed, and of what it printed."""
    console = Console(
        record=True,
        file=io.StringIO(),
        width=WIDTH,
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    console.print(Text(f"$ bub-cron {command}", style="bold"))
    console.print(Text.from_ansi(printed.rstrip("\n")))
    return console.export_svg(title=escape(f"bub-cron {command}"), code_format=FORMAT, unique_id=command)


def main(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        place = furnish(Path(home), patch)
        with place.gateway(answering(since="2026-12-01T07:03:00Z", python=sys.executable)):
            for command in COMMANDS:
                (directory / f"{command}.svg").write_text(picture(command, shown(command)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
