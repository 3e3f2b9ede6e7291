"""terminal.py: no byte that a terminal would obey; colour and cut lines on terminals alone."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
import time
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bub_cron import terminal
from bub_cron.errors import Fault, FileFaultsError
from bub_cron.states import OUTCOMES


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain Grüße 文 🎉", "plain Grüße 文 🎉"),
        ("\x1b[31mred", "\\u001b[31mred"),
        ("a\nb\tc\rd", "a\\nb\\tc\\rd"),
        ("\0\x07\x08\x7f", "\\u0000\\u0007\\u0008\\u007f"),
        ("\x9b31m\x85", "\\u009b31m\\u0085"),
        ("\u202eevil\u2066", "\\u202eevil\\u2066"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ("\udcff", "\\udcff"),
        ("\u200b\ufeff", "\\u200b\\ufeff"),
    ],
)
def test_what_steers_a_terminal_is_written_as_an_escape(text: str, shown: str) -> None:
    assert terminal.clean(text) == shown


@given(st.text())
def test_cleaned_text_can_always_be_printed(text: str) -> None:
    for line in (terminal.clean(text), *terminal.clean_lines(text), terminal.first_line(text)):
        assert not any(unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") for character in line)
        line.encode()


def test_lines_are_cleaned_one_by_one() -> None:
    assert terminal.clean_lines("a\x1b\r\n\nb\n") == ["a\\u001b", "", "b"]
    assert terminal.clean_lines("") == []


@pytest.mark.parametrize(
    ("text", "line"), [(None, ""), ("", ""), (" \n\t\n  two \x07 words \nmore", "two \\u0007 words")]
)
def test_the_first_line_that_has_anything(text: str | None, line: str) -> None:
    assert terminal.first_line(text) == line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.00 s"), (0.34, "0.34 s"), (1.25, "1.2 s"), (9.9, "9.9 s"), (10, "10 s"), (60, "1 min"), (61.9, "1 min 1 s"),
     (3600, "1 h"), (3661, "1 h 1 min"), (86400 * 2 + 10800, "2 d 3 h"), (86400 * 400, "400 d")],
)  # fmt: skip
def test_a_span_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert terminal.span(seconds) == text


def test_no_instant_is_no_text() -> None:
    assert terminal.local_time(None) == ""
    assert terminal.local_time(0).startswith(("1970-01-01", "1969-12-31"))


def test_every_outcome_has_its_style() -> None:
    assert set(OUTCOMES) == set(terminal.OUTCOME_STYLES)


def test_a_piped_table_is_plain_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    long = "x" * 5000
    terminal.table(("one", "two"), [("a\x1b[31m", terminal.outcome("failed")), ("b", long)], elastic=("two",))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [["one", "two"], ["a\\u001b[31m", "failed"], ["b", long]]
    assert all(line == line.rstrip() for line in lines)


def test_an_outcome_is_cleaned_as_well() -> None:
    assert "\x1b" not in terminal.outcome("\x1b]0;title\x07")


def test_empty_columns_go(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.table(("one", "two", "three"), [("a", "", "b"), ("c", "", "d")])
    assert capsys.readouterr().out == "one  three\na    b\nc    d\n"
    terminal.table(("one", "two"), [("a", "")], keeps_empty=True)
    assert capsys.readouterr().out == "one  two\na\n"


# --- Faults

SOURCE = "reminders:\n  a:\n    every: \u202e1x\n"
FAULTS = FileFaultsError("/a\x1b.yaml", [Fault(3, 12, "bad \x1b[31m"), Fault(9, 1, "far")], SOURCE)


def test_piped_faults_are_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    out = io.StringIO()
    terminal.print_faults(FAULTS, out)
    assert out.getvalue() == "/a\\u001b.yaml:3:12: bad \\u001b[31m\n/a\\u001b.yaml:9:1: far\n"
    assert capsys.readouterr().out == ""


# --- A real terminal

SHOW = f"""
import sys
from bub_cron import terminal
from bub_cron.errors import Fault, FileFaultsError
rows = [("a" * 200, terminal.outcome("failed"))]
terminal.table(("one", "two"), rows, elastic=("one",))
terminal.print_faults(FileFaultsError("/f", [Fault(3, 12, "bad")], {SOURCE!r}), sys.stdout)
"""


def on_terminal(code: str, columns: int = 40, **environ: str) -> str:
    """Run Python code on a terminal of its own and return what that received."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=theirs,
        stderr=theirs,
        stdin=theirs,
        env={**kept, "TERM": "xterm", **environ},
    )
    os.close(theirs)
    received = b""
    while True:
        try:
            chunk = os.read(ours, 65536)
        except OSError:  # the other side has been closed
            break
        received += chunk
    os.close(ours)
    assert process.wait() == 0
    return received.decode().replace("\r\n", "\n")


def test_a_terminal_gets_colour_rows_of_one_line_and_the_faults_line_with_a_caret() -> None:
    shown = on_terminal(SHOW)
    assert "\x1b[1;31mfailed" in shown
    assert "a" * 41 not in shown
    assert "…" in shown
    assert "every: \\u202e1x" in shown
    caret, above = shown.splitlines()[-1], shown.splitlines()[-2]
    assert "31m^" in caret
    plain = [_without_escapes(line) for line in (above, caret)]
    assert plain[0][plain[1].index("^") :] == "\\u202e1x"


def _without_escapes(line: str) -> str:
    text, rest = "", line
    while "\x1b[" in rest:
        before, _, rest = rest.partition("\x1b[")
        text, rest = text + before, rest.partition("m")[2]
    return text + rest


FOLD = """
from bub_cron import terminal
rows = [("a", "short"), ("b", "words " * 9 + "end"), ("c", terminal.Brief("brief " * 9, ""))]
terminal.table(("one", "two"), rows, folds=True, details={0: ["more " * 9]}, alike={alike})
"""


@pytest.mark.parametrize("alike", [False, True])
def test_a_last_cell_without_room_goes_below_its_row(alike: bool) -> None:
    shown = [_without_escapes(line) for line in on_terminal(FOLD.replace("{alike}", str(alike))).splitlines()]
    assert max(map(len, shown)) <= 40
    below = ["    words words words words words words", "    words words words end"]
    more = ["    more more more more more more more", "    more more"]
    if alike:
        assert shown[:3] == ["one", "a", "    short"]
        assert shown[3:-3] == [*more, "b", *below]
    else:
        assert shown[:-1] == ["one  two", "a    short", *more, "b", *below]
        assert shown[-1].startswith("c    brief")
        assert shown[-1].endswith("…")


def test_no_color_is_honoured() -> None:
    shown = on_terminal(SHOW, NO_COLOR="1")
    assert "failed" in shown
    assert not any(f"{number}m" in shown for number in (*range(30, 38), *range(90, 98)))


def test_an_empty_no_color_is_none() -> None:
    assert "\x1b[1;31mfailed" in on_terminal(SHOW, NO_COLOR="")


@pytest.mark.parametrize(("zone", "names"), [("Europe/Berlin", {"Europe/Berlin"}), ("CET-1CEST", {"CET", "CEST"})])
def test_the_clock_has_a_name_also_where_its_zone_has_none(
    monkeypatch: pytest.MonkeyPatch, zone: str, names: set[str]
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    assert terminal.clock() in names
