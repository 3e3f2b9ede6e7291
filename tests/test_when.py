"""cli/when.py: what each form of WHEN means, for an interval's beginning and its end; and that each command takes them."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import click
import pytest
from click.testing import CliRunner

from bub_cron.cli import commands
from bub_cron.cli.when import begin_of, end_of, start_of

BERLIN = ZoneInfo("Europe/Berlin")
NOW = int(datetime(2026, 11, 26, 12, 0, tzinfo=BERLIN).timestamp())
HOUR, DAY = 3600, 86400
MIDNIGHT = NOW - 12 * HOUR


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2026-11-26T11:00:00Z", NOW, NOW),
        ("2026-11-26T12:00", NOW, NOW),
        ("2026-11-26 12:00", NOW, NOW),
        ("2026-11-26", MIDNIGHT, MIDNIGHT + DAY - 1),
        ("today", MIDNIGHT, MIDNIGHT + DAY - 1),
        ("Tomorrow", MIDNIGHT + DAY, MIDNIGHT + 2 * DAY - 1),
        (" yesterday ", MIDNIGHT - DAY, MIDNIGHT - 1),
        # The clocks change: a day of 25 hours.
        ("2026-10-25", MIDNIGHT - 32 * DAY - HOUR, MIDNIGHT - 31 * DAY - 1),
    ],
)
@pytest.mark.parametrize("ahead", [True, False])
def test_an_instant_or_a_day(text: str, first: int, last: int, ahead: bool) -> None:
    is_day = first != last
    assert start_of(text, NOW, ahead=ahead, zone=BERLIN) == first
    assert begin_of(text, NOW, ahead=ahead, zone=BERLIN) == first - is_day
    assert end_of(text, NOW, ahead=ahead, zone=BERLIN) == last


@pytest.mark.parametrize("of", [start_of, begin_of, end_of])
def test_a_duration_is_ahead_or_ago(of) -> None:  # type: ignore[no-untyped-def]
    assert of("1h30m", NOW, ahead=True) == NOW + 5400
    assert of("2d", NOW, ahead=False) == NOW - 2 * DAY


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01", "26-11-2026", "-2h", "9999-12-32"])
def test_what_is_none_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.UsageError, match="is not an instant; write it like"):
        start_of(text, NOW, ahead=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["next", "--after"], ["next", "--until"], ["week", "--after"], ["log", "--since"], ["log", "--until"],
        ["pause", "a", "--until"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("text", ["2h", "tomorrow", "2031-12-01", "2031-12-01 08:30", "2031-12-01T07:30:00Z"])
def test_every_command_takes_every_form(tmp_path: Path, arguments: list[str], text: str) -> None:
    (tmp_path / "reminders.yaml").write_text("reminders: {a: {every: 1h, to: 'x:1', text: x}}\n")
    done = CliRunner(env={"BUB_HOME": str(tmp_path)}).invoke(commands, [*arguments, text])
    assert done.exit_code == 0, done.output
    assert (
        "is not an instant" in CliRunner(env={"BUB_HOME": str(tmp_path)}).invoke(commands, [*arguments, "soon"]).output
    )


NAMED = ["next", "fire", "gate", "pause", "resume", "skip", "remove", "log"]


@pytest.mark.parametrize("command", NAMED)
def test_every_command_that_takes_a_name_suggests_the_nearest(tmp_path: Path, command: str) -> None:
    reminders = "reminders: {cake: {every: 1h, to: 'x:1', text: x}}\n"
    (tmp_path / "reminders.d").mkdir()
    (tmp_path / "reminders.d" / "chat.yaml").write_text(reminders)
    done = CliRunner(env={"BUB_HOME": str(tmp_path)}).invoke(commands, [command, "caek"])
    assert done.exit_code == 1
    assert "did you mean cake?" in done.output
