"""How things look to a person: tables, times, faults with their line, and no byte that a terminal would obey.

Kept true here: what comes from a file, a chat or a model reaches the terminal only through `clean`; colour and cut lines
are for terminals alone, so that what is piped on is whole and plain.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TextIO

from rich.console import Console
from rich.text import Text

from bub_cron.checkers import span as span
from bub_cron.errors import FileFaultsError

OUTCOME_STYLES = {
    "delivered": "green",
    "silent": "green",
    "ran": "green",
    "due": "cyan",
    "accepted": "cyan",
    "running": "cyan",
    "retrying": "yellow",
    "skipped": "dim",
    "missed": "yellow",
    "unknown": "bold magenta",
    "undelivered": "bold red",
    "failed": "bold red",
    "rejected": "bold red",
}
_UNPIPED_WIDTH = 100_000
_GAP = 2
_NARROWEST = 12


def console(out: TextIO | None = None) -> Console:
    """Return a console for a stream (standard output if None): styled on a terminal, plain and unlimited elsewhere."""
    out = out or sys.stdout
    terminal = out.isatty()
    return Console(
        file=out,
        force_terminal=terminal,
        no_color=not terminal or bool(os.environ.get("NO_COLOR")),
        width=shutil.get_terminal_size().columns if terminal else _UNPIPED_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )


def clean(text: str) -> str:
    """Return text with every character that steers a terminal, or reorders what it shows, written as an escape."""
    return "".join(
        character if character == " " or not _steers(character) else _escape(character) for character in text
    )


def _steers(character: str) -> bool:
    # Cc: control characters; Cf: invisible ones, among them the bidirectional controls; Zl, Zp: line separators.
    return unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _escape(character: str) -> str:
    return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}.get(character) or f"\\u{ord(character):04x}"


def clean_lines(text: str) -> list[str]:
    """Return a text's lines, each cleaned."""
    return [clean(line) for line in text.splitlines()]


def json_line(value: object) -> str:
    """Return a value as one line of JSON that keeps letters as they are and escapes what `clean` would escape."""
    text = json.dumps(value, ensure_ascii=False)
    return "".join(_json_escape(character) if _steers(character) else character for character in text)


def _json_escape(character: str) -> str:
    # json.dumps leaves DEL as it is.
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


def first_line(text: str | None) -> str:
    """Return the first line that has anything, cleaned; "" for None."""
    return next((clean(line.strip()) for line in (text or "").splitlines() if line.strip()), "")


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    *,
    elastic: Sequence[str],
    widths: list[int] | None = None,
    least: Sequence[int] | None = None,
    gap: int = _GAP,
    narrowest: int = _NARROWEST,
    above: Mapping[int, str] | None = None,
) -> list[int]:
    """Print a table to standard output. On a terminal the columns `elastic` give way, so that each row stays one line; a
    last cell whose `overflow` is "fold" is not cut, and goes on below.

    Returns the columns' widths: given again as `widths`, they make what is printed go on below, without its head.
    `least` are widths for rows that are still to come. `gap` stands between columns; an elastic one keeps `narrowest`.
    `above` are lines of their own that stand above rows, by the rows' index.
    """
    out = console()
    cells = [[cell if isinstance(cell, Text) else Text(clean(cell)) for cell in row] for row in rows]
    head = [[Text(title, style="bold") for title in columns]] if widths is None else []
    if widths is None:
        widths = [
            max([len(title), least[place] if least else 0, *(row[place].cell_len for row in cells)])
            for place, title in enumerate(columns)
        ]
    gaps = gap * (len(columns) - 1)
    if out.is_terminal:
        _shrink(widths, [columns.index(title) for title in elastic], out.width - gaps, narrowest)
    for number, line in enumerate((*head, *cells), -len(head)):
        if above and number in above:
            out.print(Text(clean(above[number]), style="bold"), soft_wrap=True)
        further = _folded(line[-1], widths[-1], out) if out.is_terminal and line[-1].overflow == "fold" else []
        if further:
            line[-1] = further.pop(0)
        for cell, width in zip(line, widths, strict=True):
            # What is piped on is never cut, whatever came before it.
            cell.truncate(width if out.is_terminal else max(width, cell.cell_len), overflow="ellipsis", pad=True)
        # A narrow terminal may wrap the line itself: that can be read, a missing column can't.
        shown = Text(" " * gap).join(line)
        shown.rstrip()
        out.print(shown, soft_wrap=True)
        for rest in further:
            out.print(Text(" " * (sum(widths[:-1]) + gaps)) + rest, soft_wrap=True)
    return widths


def _folded(cell: Text, width: int, out: Console) -> list[Text]:
    lines = list(cell.wrap(out, width))
    for line in lines:
        line.rstrip()
    return lines


def _shrink(widths: list[int], elastic: list[int], room: int, narrowest: int) -> None:
    """Take width from the widest elastic column until all fit, or until none has any to give."""
    while sum(widths) > room:
        widest = max(elastic, key=lambda place: widths[place])
        if widths[widest] <= narrowest:
            return
        widths[widest] -= 1


def paragraph(head: Text, text: str) -> None:
    """Print a text beside its head; on a terminal it is wrapped at words, with its further lines below its first."""
    out = console()
    body = Text(clean(text))
    room = max(_NARROWEST, out.width - head.cell_len)
    for at, line in enumerate(body.wrap(out, room) if out.is_terminal else [body]):
        line.rstrip()
        out.print((head if at == 0 else Text(" " * head.cell_len)) + line, soft_wrap=True)


def outcome(word: str) -> Text:
    """Return an outcome in its colour."""
    return Text(clean(word), style=OUTCOME_STYLES.get(word, ""))


def local_time(instant: float | None) -> str:
    """Return an instant as the machine's local time, `2026-12-01 08:30`; "" for None."""
    return "" if instant is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(instant))


def print_faults(error: FileFaultsError, out: TextIO) -> None:
    """Print a file's faults, one a line; on a terminal with the line of the file and a caret below."""
    shown = console(out)
    lines = error.source.splitlines()
    for fault in error.faults:
        place = Text(f"{clean(error.path)}:{fault.line}:{fault.column}: ", style="bold")
        shown.print(place + Text(clean(fault.message)), soft_wrap=True)
        if shown.is_terminal and 0 < fault.line <= len(lines):
            _print_line(shown, lines[fault.line - 1], fault.line, fault.column)


def _print_line(shown: Console, line: str, number: int, column: int) -> None:
    room = max(20, shown.width - 12)
    start = max(0, column - room) if column > room else 0
    before, rest = clean(line[start : column - 1]), clean(line[column - 1 : start + room])
    shown.print(Text(f"{number:>6} | ", style="dim") + Text(before + rest), no_wrap=True, overflow="crop")
    shown.print(Text(" " * 6 + " | ", style="dim") + Text(" " * len(before)) + Text("^", style="bold red"))
