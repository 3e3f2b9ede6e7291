"""The faults found so far, and how their messages show the user's text.

Invariants: a message is one printable line, and there are never more faults than somebody would read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from bub_cron.errors import Fault

MAX_FAULTS = 100


class EnoughError(Exception):
    """So many faults that nobody would read on."""


class Place(Protocol):
    """What stands somewhere in the file; line and column count from 1."""

    line: int
    column: int


class Faults:
    """The faults found so far; `EnoughError` ends the search."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def add(self, place: Place, message: str) -> None:
        self.add_at(place.line, place.column, message)

    def add_at(self, line: int, column: int, message: str) -> None:
        self.found.append(Fault(line, column, message))
        if len(self.found) == MAX_FAULTS:
            line, column = max((fault.line, fault.column) for fault in self.found)
            self.found.append(Fault(line, column, "there are more faults; fix these first"))
            raise EnoughError


def shown(text: str) -> str:
    """Write a piece of the user's text so that it fits a line and any terminal."""
    return repr(text if len(text) <= 40 else text[:40] + "...")


def in_quotes(text: str) -> str:
    """Return the ending of a sentence that shows `text` in quotes, where it can be shown simply."""
    simple = len(text) <= 60 and text.isprintable() and '"' not in text and "\\" not in text
    return f': "{text}"' if simple else ""


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the ending of a sentence that asks for the known word most like `word`; "" if none is."""
    from difflib import get_close_matches

    matches = get_close_matches(word[:64].lower(), list(known), n=1)
    return f", did you mean {matches[0]!r}?" if matches else ""
