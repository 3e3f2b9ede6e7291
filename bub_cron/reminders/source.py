"""Bytes -> a tree of nodes, each with its place. The only module that imports yaml.

Invariants:
- YAML decides nothing: a node keeps its text as written and says what YAML 1.1 would make of it. Aliases, anchors and
  tags are faults.
- Depth and number of values are bounded, and nothing recurses: libyaml's own composer dies of 100,000 brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml
from yaml.resolver import Resolver

from bub_cron.errors import Fault
from bub_cron.reminders import syntax
from bub_cron.reminders.faults import Faults, in_quotes

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 50  # a file that means something is five deep
MAX_VALUES = 1_000_000  # bounds memory: 8 MiB of `[1,1,...` would be four million of them
MAX_REREAD = 4 * 1024 * 1024  # characters parsed again after slips, so that a tick stays cheap

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# What YAML itself doesn't take, so that the message is ours and the rest of the file can still be judged; and byte order
# marks inside of the file, which nobody sees and which YAML takes here and not there.
INVISIBLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]")

# A character beyond U+FFFF as JSON writes it, in two escapes. libyaml refuses each of them.
_PAIR = re.compile(r"(?<!\\)\\u(d[89ab][0-9a-f]{2})\\u(d[c-f][0-9a-f]{2})", re.IGNORECASE)
_SHIFT = 8  # takes an escape of a pair to one of the private use area, which is as long and which libyaml takes
_SHIFTED = re.compile("([\ue000-\ue3ff])([\ue400-\ue7ff])")
_SHIFTED_ESCAPE = re.compile(r"\\u(e[0-7][0-9a-f]{2})", re.IGNORECASE)

_COMMENT = re.compile(r"[ \t]+(#.*)")  # behind a value
_WIDE_COLON = re.compile(r"^[ \t]*([a-z_]+)[ \t]*\uff1a", re.MULTILINE)

SCALAR, LIST, MAP, BROKEN = "text", "a list", "a group of keys", "broken"

_RESOLVER = Resolver()
_TYPES = {"int": "a number", "float": "a number", "timestamp": "a date", "null": "nothing"}


class Node:
    """A value of the file and where it stands, from 1.

    `plain` says that it was written without quotes, and `cut` is what YAML took for a comment behind it. `items` are a list's values, or a mapping's keys and values in turn.
    A `BROKEN` one has had its fault already.
    """

    __slots__ = ("column", "cut", "items", "kind", "line", "plain", "text")

    def __init__(self, kind: str, line: int, column: int, text: str = "", plain: bool = False) -> None:
        self.kind = kind
        self.line = line
        self.column = column
        self.text = text
        self.plain = plain
        self.cut = ""
        self.items: list[Node] = []

    def pairs(self) -> Iterator[tuple[Node, Node]]:
        """Yield keys and values; a last key whose value a syntax error took is left out."""
        return zip(self.items[::2], self.items[1::2], strict=False)

    def surprise(self) -> str:
        """Return what YAML 1.1 reads an unquoted value as, if not as text: "true", "a number", ...; else ""."""
        if not self.plain:
            return ""
        tag = _RESOLVER.resolve(yaml.ScalarNode, self.text, (True, False)).rpartition(":")[2]  # type: ignore[no-untyped-call]
        if tag == "bool":
            return "true" if self.text.lower() in {"yes", "true", "on"} else "false"
        return _TYPES.get(tag, "")


def decode(source: bytes, faults: Faults) -> str:
    """Return the text of a file, as far as it can be shown; report it if it is too long or not UTF-8."""
    if len(source) > MAX_BYTES:
        faults.add_at(1, 1, f"the file is over {MAX_BYTES // 1024 // 1024} MiB; split it, or shorten its messages")
        return ""
    if source.startswith((b"\xff\xfe", b"\xfe\xff")):
        faults.add_at(1, 1, "the file is in UTF-16; save it as UTF-8")
        return ""
    try:
        return source.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The error's own offsets are those of the decoder, which has dropped a byte order mark.
        line, column = _position(error.object[: error.start].decode("utf-8-sig"))
        byte = error.object[error.start]
        faults.add_at(line, column, f"this is not UTF-8 (byte 0x{byte:02X}); save the file as UTF-8")
        return source.decode("utf-8-sig", errors="replace")


def read(text: str, faults: Faults) -> tuple[Node, bool]:
    """Return the file as a tree, and whether a syntax error cut it short; report what YAML finds wrong.

    A value that only lacks its quotes (`cron: * * * * *`) is reported, quoted, and the text read again.
    """
    for match in INVISIBLE.finditer(text):
        line, column = _position(text[: match.start()])
        faults.add_at(line, column, f"there is an invisible control character here, U+{ord(match[0]):04X}; remove it")
    text = INVISIBLE.sub("_", text)
    text, pairs = _PAIR.subn(lambda pair: f"\\u{_shifted(pair[1], _SHIFT)}\\u{_shifted(pair[2], _SHIFT)}", text)
    budget = MAX_REREAD
    while True:
        composer = _Composer(text, pairs > 0)
        fault, is_slip = composer.compose()
        budget -= len(text)
        if fault is None:
            break
        faults.add(fault, fault.message)
        if not is_slip or budget <= 0:
            break
        text = syntax.quote_value(text, fault.line)
    for noted in composer.faults:
        faults.add(noted, noted.message)
    root = composer.root
    if root is None or (root.kind == SCALAR and not root.text):
        root = Node(SCALAR, 1, 1, plain=True)
    if fault is not None:
        _drop_last_entry(root)
    return root, fault is not None


def _drop_last_entry(root: Node) -> None:
    """Drop the entry (a reminder, a default) in or after which a syntax error struck: its end may be missing."""
    last = root.items[-1] if root.kind == MAP and root.items else root
    if last.kind == MAP:
        del last.items[(len(last.items) - 1) // 2 * 2 :]
    else:
        last.kind = BROKEN


def _shifted(digits: str, distance: int) -> str:
    """Add to the first two of four hexadecimal digits; the result has the case of the first."""
    head = f"{int(digits[:2], 16) + distance:02x}"
    return (head.upper() if digits[0].isupper() else head) + digits[2:]


def _unshifted(value: str, in_double_quotes: bool) -> str:
    """Undo the shift of escapes: to the character that a pair stands for, or to what was written if it is no escape."""
    if not in_double_quotes:
        return _SHIFTED_ESCAPE.sub(lambda escape: f"\\u{_shifted(escape[1], -_SHIFT)}", value)

    def character(pair: re.Match[str]) -> str:
        return chr(0x10000 + (ord(pair[1]) - 0xE000 << 10) + ord(pair[2]) - 0xE400)

    return _SHIFTED.sub(character, value)


def _position(before: str) -> tuple[int, int]:
    """Return line and column, from 1, of what comes after `before`; lines end where YAML says that they do."""
    lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", before)
    return len(lines), len(lines[-1]) + 1


class _StopError(Exception):
    """There is no use in reading on; holds the fault."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault


class _Composer:
    """Put a parser's events together to one tree; note what YAML offers and this file doesn't."""

    def __init__(self, text: str, has_pairs: bool) -> None:
        self.faults: list[Fault] = []
        self._text = text
        self._has_pairs = has_pairs
        self.root: Node | None = None
        self._stack: list[Node] = []
        self._count = 0

    def compose(self) -> tuple[Fault | None, bool]:
        """Fill `root` and `faults`; return the fault that ended it, if any, and whether it is a slip to be mended."""
        try:
            # As yaml.parse does, but for its second look at each event.
            loader = LOADER(self._text)
            try:
                while type(event := loader.get_event()) is not yaml.StreamEndEvent:
                    self._take(event)
            finally:
                loader.dispose()
        except _StopError as stop:
            return stop.fault, False
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            start = error.context_mark or mark
            if mark is None or start is None:
                return Fault(1, 1, f"this can't be read as YAML: {error}"), False
            places = (start.line, start.column), (mark.line, mark.column)
            return syntax.explain(str(error.context), str(error.problem), *places, self._text.splitlines())
        except (yaml.YAMLError, ValueError, OverflowError) as error:
            # PyYAML lets some of its own conversions through: a tag with bad %-escapes, "\UFFFFFFFF" without libyaml.
            return Fault(1, 1, f"this can't be read as YAML: {error}"), False
        return None, False

    # Events are `Any` here: the stubs call every mark optional, which those of a parser never are.

    def _take(self, event: Any) -> None:
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self._add_scalar(event)
        elif kind is yaml.MappingStartEvent:
            self._open(event, MAP)
        elif kind is yaml.SequenceStartEvent:
            self._open(event, LIST)
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._stack.pop()
        elif kind is yaml.AliasEvent:
            shown = in_quotes("*" + str(event.anchor))
            self.faults.append(
                _fault(event, f"aliases (*) are not taken; write the value out, or put text in quotes{shown}")
            )
            self._place(event, Node(BROKEN, event.start_mark.line + 1, event.start_mark.column + 1))
        elif kind is yaml.DocumentStartEvent and self.root is not None:
            raise _StopError(_fault(event, "a second document begins here; keep all reminders in one, without ---"))

    def _open(self, event: Any, kind: str) -> None:
        self._stack.append(self._add(event, kind))
        if len(self._stack) > MAX_DEPTH:
            raise _StopError(_fault(event, f"this is nested more than {MAX_DEPTH} levels deep"))

    def _add_scalar(self, event: Any) -> None:
        plain = event.implicit[0]
        value = _unshifted(event.value, event.style == '"') if self._has_pairs else event.value
        node = self._add(event, SCALAR, value, plain)
        if plain:
            end = event.end_mark.index
            if self._text[end : end + 1] in " \t" and (comment := _COMMENT.match(self._text, end)):
                node.cut = comment[1].rstrip()
            if "\uff1a" in value:
                self._note_wide_colon(event.start_mark.index, end)

    def _note_wide_colon(self, begin: int, end: int) -> None:
        """Report a key with a full-width colon: YAML takes its line for more of the text that stands above it."""
        key = _WIDE_COLON.search(self._text, self._text.find("\n", begin, end) + 1 or end, end)
        if key is not None:
            self.faults.append(Fault(*_position(self._text[: key.end() - 1]), syntax.WIDE_COLON.format(key[1])))

    def _add(self, event: Any, kind: str, text: str = "", plain: bool = False) -> Node:
        node = Node(kind, event.start_mark.line + 1, event.start_mark.column + 1, text, plain)
        if event.anchor is not None:
            self.faults.append(_fault(event, "anchors (&) are not taken; put a text that begins with & in quotes"))
        if event.tag is not None:
            self.faults.append(_fault(event, "tags (!) are not taken; put a text that begins with ! in quotes"))
            node.kind = BROKEN
        return self._place(event, node)

    def _place(self, event: Any, node: Node) -> Node:
        if self._stack:
            self._stack[-1].items.append(node)
        else:
            self.root = node
        self._count += 1
        if self._count > MAX_VALUES:
            raise _StopError(_fault(event, f"the file holds more than {MAX_VALUES:,} values"))
        return node


def _fault(event: Any, message: str) -> Fault:
    return Fault(event.start_mark.line + 1, event.start_mark.column + 1, message)
