"""Cut a text into what a chat takes in one message.

Invariants:
- No part is longer than the limit, counted in the chat's own units, and none is empty.
- Nothing is lost but white space at a cut.
- A cut lies between paragraphs; if there is no place, between lines; else between words; else between characters, and
  then inside what people see as one character only if that alone is longer than any chat would show.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import NamedTuple

_PLACES = (re.compile(r"\n[^\S\n]*\n"), re.compile(r"\n"), re.compile(r"\s"))  # best first
_LONGEST_CHARACTER = 32  # code points that are kept together: a family of emoji has about ten


class Limit(NamedTuple):
    """How much one message may hold: `most`, in units of which a character has `units(character)`."""

    most: int
    units: Callable[[str], int]
    unit: str
    """The unit in plain words, plural."""


def code_points(character: str) -> int:
    """Count as Python does."""
    return 1


def utf16_units(character: str) -> int:
    """Count as Telegram and JavaScript do: most emoji are two."""
    return 2 if ord(character) > 0xFFFF else 1


def utf8_bytes(character: str) -> int:
    """Count bytes on the wire."""
    point = ord(character)
    return 1 if point < 0x80 else 2 if point < 0x800 else 3 if point < 0x10000 else 4


def parts(text: str, limit: Limit | None) -> list[str]:
    """Return a text in parts of at most `limit` each, in order; the text as it is if it fits or no limit is known."""
    if limit is None or _end(text, 0, limit) == len(text):
        return [text]
    found = []
    start = _skip_blank_lines(text, 0)
    while start < len(text):
        end = _end(text, start, limit)
        cut, following = (end, end) if end == len(text) else _cut(text, start, end)
        if part := text[start:cut].rstrip():
            found.append(part)
        start = _skip_blank_lines(text, following)
    return found


def _end(text: str, start: int, limit: Limit) -> int:
    """Return how far a part that begins at `start` could reach."""
    room = limit.most
    for index in range(start, len(text)):
        room -= limit.units(text[index])
        if room < 0:
            return max(index, start + 1)
    return len(text)


def _cut(text: str, start: int, end: int) -> tuple[int, int]:
    """Return where a part that may reach to `end` ends, and where the next one begins."""
    for place in _PLACES:
        # One more than the part may hold: a break right behind it is as good as one within.
        found = list(place.finditer(text, start, end + 1))
        if found and text[start : found[-1].start()].strip():
            return found[-1].start(), found[-1].end()
    for cut in range(end, max(start, end - _LONGEST_CHARACTER), -1):
        if not _is_inside(text, cut):
            return cut, cut
    return end, end


def _skip_blank_lines(text: str, start: int) -> int:
    """Return where the first line with anything in it begins; its indentation is kept."""
    found = re.compile(r"(?:[^\S\n]*\n)*(?:\s*\Z)?").match(text, start)
    return found.end() if found else start


def _is_inside(text: str, cut: int) -> bool:
    """Tell whether a cut would go through what people see as one character."""
    before, after = text[cut - 1], text[cut]
    if after in "\u200d\ufe0e\ufe0f" or unicodedata.category(after).startswith("M"):
        return True
    if before == "\u200d" or "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f":
        return True
    if _is_flag_half(before) and _is_flag_half(after):
        halves = 0
        while halves < cut and _is_flag_half(text[cut - 1 - halves]):
            halves += 1
        return halves % 2 == 1
    return before == "\r" and after == "\n"


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
