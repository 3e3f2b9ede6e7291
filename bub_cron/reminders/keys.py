"""Groups of keys in a file's tree -> their entries and values.

Invariants: each thing that is wrong is reported once, at its place; what comes out as None has had its fault.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bub_cron.errors import ScheduleError
from bub_cron.reminders.faults import Faults, shown
from bub_cron.reminders.source import BROKEN, MAP, SCALAR, Node

Entries = dict[str, tuple[Node, Node]]  # by key: its node and its value's
Values = dict[str, Any]  # by key, as the readers return them; None once the fault of a value is reported


class Keys:
    """Read groups of keys. `is_cut`: a syntax error ended the tree early, so what is missing is no fault."""

    def __init__(self, faults: Faults, is_cut: bool) -> None:
        self.faults = faults
        self.is_cut = is_cut

    def is_group(self, node: Node, what: str, right: str, at: Node | None = None) -> bool:
        """Tell whether `node` holds keys, or nothing at all (all commented out); report, at `at`, if something else."""
        if node.kind == MAP or node.surprise() == "nothing":
            return True
        if node.kind != BROKEN:
            self.faults.add(at or node, f"{what} must be {right}, not {node.kind}")
        return False

    def pairs(self, node: Node) -> list[tuple[Node, Node]]:
        """Return the keys and values of a group; report keys that are no words, or repeated."""
        pairs = []
        places: dict[str, Node] = {}
        for key, value in node.pairs():
            if key.kind == SCALAR:
                pairs.append((key, value))
                first = places.setdefault(key.text, key)
                if first is not key:
                    what = f"{shown(key.text)} is given twice, first on line {first.line}; keep one"
                    self.faults.add(key, what)
            elif key.kind != BROKEN:
                self.faults.add(key, f"a key must be a word, not {key.kind}")
        return pairs

    def entries(self, node: Node, known: tuple[str, ...], why_unknown: Callable[[str], str]) -> Entries:
        """Return the entries of a group that have a known key; report the others."""
        entries: Entries = {}
        for key, value in self.pairs(node):
            if key.text in known:
                entries.setdefault(key.text, (key, value))
            else:
                self.faults.add(key, why_unknown(key.text))
        return entries

    def value(self, node: Node, what: str, reader: Callable[[Node], Any]) -> Any:
        """Return what `reader` makes of a node, or None once its fault is reported."""
        if node.kind == BROKEN:
            return None
        try:
            return reader(node)
        except ScheduleError as error:
            self.faults.add(node, str(error))
        except ValueError as error:
            self.faults.add(node, f"{what} {error}")
        return None
