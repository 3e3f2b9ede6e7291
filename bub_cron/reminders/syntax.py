"""What a YAML parser stumbles over -> a fault in the user's words; and the slips that quotes would fix.

Invariants: a line is mended only where its meaning is plain, a value that lacks its quotes. Nothing else is guessed.
"""

from __future__ import annotations

import re

from bub_cron.errors import Fault
from bub_cron.reminders.faults import in_quotes, shown

Mark = tuple[int, int]  # line and column, from 0, as the parser counts

_VALUE = re.compile(r"(\s*(?:- +)*(?:(?:[\w.-]+|\"[^\"]*\"|'[^']*'):[ \t]+)?)(\S.*)")
WIDE_COLON = (
    "this colon is a full-width one (\uff1a), which YAML doesn't take; write {}: with a plain colon and a space"
)
_WIDE_KEY = re.compile("[ \\t-]*([a-z_]+)[ \\t]*\uff1a")
_CLOSERS = {"[": "]", "{": "}"}
_INDICATORS = "*&@`%!|>,"


def explain(context: str, problem: str, start: Mark, mark: Mark, lines: list[str]) -> tuple[Fault, bool]:
    """Return the fault, and whether it is a slip on its line that `quote_value` fixes.

    `context` and `problem` are the parser's own words, `start` and `mark` their places.
    """
    for number in range(min(start[0], max(mark[0] - 1, 0)), min(mark[0] + 1, len(lines))):
        if key := _WIDE_KEY.match(lines[number]):
            return _fault((number, key.end() - 1), WIDE_COLON.format(key[1])), False
    place, message = _whole(context, problem, start, mark, lines)
    if message:
        return _fault(place, message), False
    if context.startswith(("while scanning an a", "while scanning a block")):  # an alias, an anchor, a block scalar
        mark = start
    line = lines[mark[0]] if mark[0] < len(lines) else ""
    before, value = _split_value(line)
    if value and mark[1] >= len(before):
        if value[0] in _INDICATORS or value.startswith("- "):
            what = f"a value that begins with {value[0]} must be in quotes{in_quotes(value)}"
            return _fault((mark[0], len(before)), what), True
        if "mapping values" in problem and value[0] not in "\"'[{":
            what = f"a text that holds a colon and a space must be in quotes{in_quotes(value)}"
            return _fault((mark[0], len(before)), what), True
    else:
        value = ""
    return _fault(*_in_line(problem, mark, line, value)), False


def quote_value(text: str, number: int) -> str:
    """Return `text` with the value on line `number` in quotes, without the lines that continue it."""
    lines = text.splitlines(keepends=True)
    before, value = _split_value(lines[number - 1])
    quoted = value.replace("'", "''")
    lines[number - 1] = f"{before}'{quoted}'\n"
    for index in range(number, len(lines)):
        if lines[index].strip() and _indent(lines[index]) <= _indent(before + "'"):
            break
        lines[index] = "\n"
    return "".join(lines)


def _split_value(line: str) -> tuple[str, str]:
    """Split a line into `key: ` (or `- `) and its value, without a comment; ("", "") if it holds no such pair."""
    match = _VALUE.match(line)
    if match is None or not match[1].strip():
        return "", ""
    return match[1], re.split(r"\s#", match[2], maxsplit=1)[0].rstrip()


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _whole(context: str, problem: str, start: Mark, mark: Mark, lines: list[str]) -> tuple[Mark, str]:
    """Explain what the parser was in the middle of; "" if that isn't what is wrong."""
    end = (len(lines) - 1, len(lines[-1])) if lines else (0, 0)
    if start >= end:
        return end, "the file ends too early; a bracket or a quote is not closed"
    if "quoted scalar" in context and "escape" in problem:
        return mark, "in double quotes a \\ begins an escape; write \\\\, or use single quotes"
    if "quoted scalar" in context:
        return start, "the quote that opens here is never closed"
    if context.endswith(("flow sequence", "flow mapping")):
        bracket = lines[start[0]][start[1] : start[1] + 1]
        what = f"the {bracket} that opens here is not closed with {_CLOSERS.get(bracket, 'its like')}, or lacks a comma"
        return start, f"{what}; put text that begins with {bracket} in quotes"
    if "simple key" in context:
        return start, "a colon and a space are missing here; write it as key: value"
    if "block collection" in context:
        return mark, "the items of this list must all begin with -, in the same column"
    return mark, ""


def _in_line(problem: str, mark: Mark, line: str, value: str) -> tuple[Mark, str]:
    """Explain what is wrong at `mark`; `value` is the line's if the mark is in it."""
    character = line[mark[1] : mark[1] + 1]
    first = (mark[0], _indent(line))
    if character == "\t":
        return mark, "a tab can't be used to indent; use spaces"
    if value and character and character in _INDICATORS:  # inside of brackets
        return mark, f"a value that begins with {character} must be in quotes"
    if value and value[0] in "\"'[{":
        return (
            mark,
            f"there is more after the closing {_CLOSERS.get(value[0], value[0])}; put the whole value in quotes",
        )
    if "mapping values" in problem:
        return first, "this line is indented like a part of the one above; indent keys alike, and end each with a colon"
    if mark == first and ("expected key" in problem or "block end" in problem):
        return mark, "this line doesn't line up with the keys above it; indent keys of one reminder alike"
    if "cannot start any token" in problem:
        return mark, f"nothing can begin with {shown(character)} here; put the text in quotes"
    return mark, f"this can't be read as YAML: {problem}"


def _fault(place: Mark, message: str) -> Fault:
    return Fault(place[0] + 1, place[1] + 1, message)
