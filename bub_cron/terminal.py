"""How things look to a person: tables, times, faults with their line, and no byte that a terminal would obey.

Invariants: what comes from a file, a chat or a model reaches the terminal only through `clean`; colour and cut lines are
for terminals alone, so that what is piped on is whole and plain. rich is loaded where it is needed: it costs as much as all
else that a command loads.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

from bub_cron.checkers import span as span
from bub_cron.errors import FileFaultsError, ScheduleError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

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
_INDENT = 4
_NARROWEST = 12


def console(out: TextIO | None = None) -> Console:
    """Return a console for a stream (standard output if None): styled on a terminal, plain and unlimited elsewhere."""
    from rich.console import Console

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
    if text.isprintable():
        return text
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


class Styled(str):
    """Text in a style of `_CODES`, which counts on a terminal alone. What is made of it is plain text again."""

    __slots__ = ("style",)

    def __new__(cls, text: str, style: str) -> Styled:
        made = super().__new__(cls, text)
        made.style = style
        return made

    style: str


class Brief(Styled):
    """Text of which the beginning is enough: it is cut where it has no room, also in a column that folds."""

    __slots__ = ()


_CODES = {
    "bold": "1", "dim": "2", "green": "32", "yellow": "33", "cyan": "36", "bold red": "1;31", "bold magenta": "1;35",
}  # fmt: skip


def columns_of(out: TextIO) -> int | None:
    """Return how many columns a stream's terminal has; None if it is none, so that no line has an end."""
    return shutil.get_terminal_size().columns if out.isatty() else None


def _has_colour(out: TextIO) -> bool:
    return out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") not in ("dumb", "unknown")


def painted(text: str, out: TextIO) -> str:
    """Return a text as a stream takes it: in its style on a terminal."""
    code = _CODES.get(text.style) if isinstance(text, Styled) and _has_colour(out) else None
    return f"\x1b[{code}m{text}\x1b[0m" if code and text else str(text)


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    elastic: Sequence[str] = (),
    widths: list[int] | None = None,
    least: Sequence[int] | None = None,
    gap: int = _GAP,
    narrowest: int = _NARROWEST,
    above: Mapping[int, str] | None = None,
    details: Mapping[int, Sequence[str]] | None = None,
    folds: bool = False,
    alike: bool = False,
    keeps_empty: bool = False,
) -> list[int]:
    """Print a table to standard output, without the columns that are empty unless it `keeps_empty`.

    On a terminal the columns `elastic` give way, so that a row stays one line. With `folds` the last cell is never cut:
    where it has no room it goes below its row, wrapped and indented; with `alike` those of all rows do, if one has to.

    Returns the columns' widths: given again as `widths`, they make what is printed go on below, without its head.
    `least` are widths for rows that follow later. `gap` stands between columns; an elastic one keeps `narrowest`. `above` are
    lines of their own above rows, `details` lines below them, by the rows' index.
    """
    out = sys.stdout
    cells = [[_cleaned(cell) for cell in row] for row in rows]
    head = widths is None
    if widths is None:
        widths = _natural_widths(columns, cells, least, keeps_empty=keeps_empty)
    kept = [place for place, width in enumerate(widths) if width >= 0]
    room = columns_of(out)
    given = list(widths)
    if room is not None:
        room -= gap * (len(kept) - 1)
        places = [columns.index(title) for title in elastic]
        if folds:
            widths[-1] = min(widths[-1], narrowest)
        _shrink(widths, [place for place in places if widths[place] >= 0], room, narrowest)
        if folds:
            widths[-1] = max(widths[-1], room - sum(widths[place] for place in kept[:-1]))
    too_wide = [
        room is not None and folds and not isinstance(row[-1], Brief) and width_of(row[-1]) > widths[-1]
        for row in cells
    ]
    if alike and any(too_wide):
        too_wide = [True] * len(cells)
    lines: list[str] = []
    if head:
        titles = [*columns[:-1], "" if cells and all(too_wide) else columns[-1]]
        lines.append(_row([Styled(title, "bold") for title in titles], widths, kept, gap, out))
    for number, row in enumerate(cells):
        if above and number in above:
            lines.append(painted(Styled(clean(above[number]), "bold"), out))
        below = [*([row[-1]] if too_wide[number] else []), *(details or {}).get(number, ())]
        lines.append(_row([*row[:-1], "" if too_wide[number] else row[-1]], widths, kept, gap, out))
        lines += [part for text in below for part in _wrapped(clean(text), _INDENT)]
    out.write("".join(f"{line}\n" for line in lines))
    return given if room is None else widths


def _natural_widths(
    columns: Sequence[str], cells: Sequence[Sequence[str]], least: Sequence[int] | None, *, keeps_empty: bool
) -> list[int]:
    """Return how wide each column is; -1 for one that is empty."""
    return [
        max([width_of(title), least[place] if least else 0, *(width_of(row[place]) for row in cells)])
        if keeps_empty or least or not cells or any(row[place] for row in cells)
        else -1
        for place, title in enumerate(columns)
    ]


def _cleaned(cell: str) -> str:
    return cell if isinstance(cell, Styled) else clean(cell)


def _row(cells: Sequence[str], widths: Sequence[int], kept: Sequence[int], gap: int, out: TextIO) -> str:
    parts = []
    for place in kept:
        cell, width = cells[place], widths[place]
        # What is piped on is never cut, whatever came before it.
        short = _cut(cell, width) if out.isatty() else cell
        shown = short if short is cell else Styled(short, cell.style) if isinstance(cell, Styled) else short
        parts.append(painted(shown, out) + " " * (width - width_of(short)))
    # A narrow terminal may wrap the line itself: that can be read, a missing column can't.
    return (" " * gap).join(parts).rstrip()


def width_of(text: str) -> int:
    """Return how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _cut(text: str, room: int) -> str:
    if width_of(text) <= room:
        return text
    if text.isascii():
        return f"{text[: room - 1]}…"
    from rich.cells import set_cell_size

    return f"{set_cell_size(text, room - 1)}…"


def _wrapped(text: str, indent: int) -> list[str]:
    """Return a text's lines, indented: wrapped at words on a terminal, with what overflows folded, else one line."""
    room = columns_of(sys.stdout)
    if room is None or width_of(text) + indent <= room:
        return [" " * indent + text]
    from rich.console import Console
    from rich.text import Text

    plain = Console(width=room, color_system=None)
    lines = Text(text, overflow="fold").wrap(plain, max(_NARROWEST, room - indent))
    return [" " * indent + line.plain.rstrip() for line in lines]


def _shrink(widths: list[int], elastic: list[int], room: int, narrowest: int) -> None:
    """Take width from the widest elastic column until all fit, or until none has any to give."""
    while elastic and sum(width for width in widths if width >= 0) > room:
        widest = max(elastic, key=lambda place: widths[place])
        if widths[widest] <= narrowest:
            return
        widths[widest] -= 1


def paragraph(head: str | Text, text: str) -> None:
    """Print a text beside its head; on a terminal it is wrapped at words, with its further lines below its first."""
    out = sys.stdout
    if isinstance(head, str):
        width, shown = width_of(head), painted(head, out)
    else:
        rich_console = console(out)
        with rich_console.capture() as captured:
            rich_console.print(head, end="", soft_wrap=True)
        width, shown = head.cell_len, captured.get()
    first, *rest = _wrapped(clean(text), width)
    out.write(f"{shown}{first[width:]}\n" + "".join(f"{line}\n" for line in rest))


def outcome(word: str) -> Styled:
    """Return an outcome in its colour."""
    return Styled(clean(word), OUTCOME_STYLES.get(word, ""))


def local_time(instant: float | None) -> str:
    """Return an instant as the machine's local time, `2026-12-01 08:30`; "" for None."""
    return "" if instant is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(instant))


def clock() -> str:
    """Return the name of the machine's zone; where it has none that others know (`TZ=CET-1CEST`), what the C library says."""
    from bub_cron.schedule import machine_zone

    try:
        return machine_zone()
    except ScheduleError:
        return time.strftime("%Z")


def print_faults(error: FileFaultsError, out: TextIO) -> None:
    """Print a file's faults, one a line; on a terminal with the line of the file and a caret below."""
    lines = error.source.splitlines()
    for fault in error.faults:
        place = Styled(f"{clean(error.path)}:{fault.line}:{fault.column}: ", "bold")
        out.write(f"{painted(place, out)}{clean(fault.message)}\n")
        columns = columns_of(out)
        if columns is not None and 0 < fault.line <= len(lines):
            _print_line(out, columns, lines[fault.line - 1], fault.line, fault.column)


def _print_line(out: TextIO, columns: int, line: str, number: int, column: int) -> None:
    room = max(20, columns - 12)
    start = max(0, column - room) if column > room else 0
    before, rest = clean(line[start : column - 1]), clean(line[column - 1 : start + room])
    # Cut at the terminal's edge, so that the caret stays below its place.
    marked = painted(Styled(f"{number:>6} | ", "dim"), out)
    out.write(f"{marked}{_cropped(before + rest, columns - 9)}\n")
    bar = painted(Styled(f"{'':6} | ", "dim"), out)
    out.write(f"{bar}{' ' * width_of(before)}{painted(Styled('^', 'bold red'), out)}\n")


def _cropped(text: str, room: int) -> str:
    if width_of(text) <= room:
        return text
    from rich.cells import set_cell_size

    return set_cell_size(text, room)
