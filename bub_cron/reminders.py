"""reminders.yaml -> `Reminder`; every fault with its line.

Kept true here:
- A file is taken whole or not at all, and whoever mends it sees all of its faults at once: a syntax error ends the
  reading only where the rest can't be understood without guessing.
- YAML never decides in silence. Its 1.1 surprises (`yes`, `1:30`, a bare date), aliases, tags, merge keys and duplicate
  keys are faults that say what to write instead.
- Whatever the bytes, only `FileFaultsError` comes out of `parse`: events of the parser are put together here, with a cap
  on depth and number, because libyaml's own composer recurses and dies of 100,000 brackets.
- The fields that the socket takes, too, are judged by the socket's own checkers (`wire.FIELDS`).

The file is only ever read.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cache, partial
from itertools import islice
from typing import Any
from zoneinfo import ZoneInfo

import yaml
from yaml.resolver import Resolver

from bub_cron import schedule, wire
from bub_cron.errors import Fault, FileFaultsError, FileMissingError, FileUnreadableError, ScheduleError
from bub_cron.schedule import Schedule

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 50  # a file that means something is five deep
MAX_VALUES = 1_000_000  # bounds memory: 8 MiB of `[1,1,...` would be four million of them
MAX_FAULTS = 100
MAX_REQUEST = wire.MAX_LINE - 1024  # bytes; the rest is for the id and the times that are added when it fires
REPAIR_BUDGET = 4 * 1024 * 1024  # characters parsed again after a syntax error, so that a tick stays cheap

SCHEDULES = ("cron", "every", "at")
DEFAULT_GRACE = 3600  # seconds
DEFAULT_AT_GRACE = 86400
DEFAULT_CATCH_UP = "latest"

_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class Reminder:
    """One entry of the file, with every default filled in.

    `schedule_text` is the schedule as written (`0 9 * * mon-fri`, `30m`, the dates of an `at` joined by ", ");
    `kind` is `prompt`, `text` or `command` and `body` the message; `grace` and `timeout` are seconds; `timezone` is
    where its times are read, "UTC" for an `every` without one; `line` and `column` are those of its name, from 1.
    """

    name: str
    schedule: Schedule
    schedule_text: str
    kind: str
    body: str
    to: str
    session: str
    timezone: str
    enabled: bool
    grace: int
    catch_up: str
    overlap: str
    attempts: int
    timeout: int
    reply: str
    quiet: bool
    model: str | None
    context: dict[str, str]
    line: int
    column: int

    def content(self) -> dict[str, object]:
        """Return the fields of a request on the socket that make this reminder what it is: no id, no time."""
        fields: dict[str, object] = {
            "reminder": self.name,
            "to": self.to,
            self.kind: self.body,
            "attempts": self.attempts,
            "timeout": self.timeout,
            "overlap": self.overlap,
            "reply": self.reply,
            "quiet": self.quiet,
        }
        if self.session != self.to:
            fields["session"] = self.session
        if self.model is not None:
            fields["model"] = self.model
        if self.context:
            fields["context"] = dict(self.context)
        return fields


@dataclass(frozen=True, slots=True)
class Notice:
    """Something legal but suspicious, at the name of the reminder that it is about."""

    line: int
    column: int
    message: str


def load(path: str) -> list[Reminder]:
    """Read the reminders of a file, in its order.

    Raises FileMissingError, FileUnreadableError (also for what is no regular file: a FIFO would block, a device may
    never end) or FileFaultsError.
    """
    try:
        # Without O_NONBLOCK, opening a FIFO that nobody writes to would wait for ever.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise FileUnreadableError(f"{path} is not a regular file")
            source = file.read(MAX_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise FileMissingError(f"{path} does not exist; `bub-cron init` writes one to start from") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise FileUnreadableError(f"{path} can't be read: {reason}") from error
    return parse(source, path)


def parse(source: bytes, path: str, *, machine_zone: Callable[[], str] = schedule.machine_zone) -> list[Reminder]:
    """Return the reminders in the bytes of a file, in its order; raise FileFaultsError with all of its faults.

    `path` is for the faults' text alone. `machine_zone` is asked at most once, and only if a reminder needs it.
    """
    faults = _Faults()
    reminders: list[Reminder] = []
    text = ""
    try:
        text = _decode(source, faults)
        if not faults.found:
            reminders = _judge(text, faults, machine_zone)
    except _EnoughError:
        faults.found.sort(key=lambda fault: (fault.line, fault.column))
        last = faults.found[-1]
        faults.found.append(Fault(last.line, last.column, "there are more faults; mend these first"))
    if faults.found:
        # What can't be printed must not reach a terminal; one character for one, so that columns stay true.
        raise FileFaultsError(path, faults.found, _CONTROL.sub("\ufffd", text))
    return reminders


def _judge(text: str, faults: _Faults, machine_zone: Callable[[], str]) -> list[Reminder]:
    for match in _CONTROL.finditer(text):
        line, column = _position(text[: match.start()])
        faults.add_at(line, column, f"there is a control character here, U+{ord(match[0]):04X}; remove it")
    root = _read_tree(_CONTROL.sub("_", text), faults)
    return [] if root is None else _Judge(faults, _Schedules(machine_zone)).file(root)


# --- Faults


class _EnoughError(Exception):
    """So many faults that nobody would read on."""


class _Faults:
    """The faults found so far; `_EnoughError` ends the search."""

    def __init__(self) -> None:
        self.found: list[Fault] = []

    def add_at(self, line: int, column: int, message: str) -> None:
        self.found.append(Fault(line, column, message))
        if len(self.found) >= MAX_FAULTS:
            raise _EnoughError

    def add(self, node: _Node, message: str) -> None:
        self.add_at(node.line, node.column, message)


def _shown(text: str) -> str:
    """Write a piece of the user's text so that it fits a line and any terminal."""
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _in_quotes(text: str) -> str:
    """Return the ending of a sentence that shows `text` in quotes, where it can be shown simply."""
    simple = len(text) <= 60 and text.isprintable() and '"' not in text and "\\" not in text
    return f': "{text}"' if simple else ""


def _nearest(word: str, known: Iterable[str]) -> str:
    matches = get_close_matches(word[:64].lower(), list(known), n=1)
    return f", did you mean {matches[0]!r}?" if matches else ""


# --- Bytes -> text

# What YAML itself doesn't take, so that the message is ours and the rest of the file can still be judged.
_CONTROL = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def _decode(source: bytes, faults: _Faults) -> str:
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
        text = source.decode("utf-8-sig", errors="replace")
        line, column = _position(error.object[: error.start].decode("utf-8-sig"))
        byte = error.object[error.start]
        faults.add_at(line, column, f"this is not UTF-8 (byte 0x{byte:02X}); save the file as UTF-8")
        return text


def _position(before: str) -> tuple[int, int]:
    """Return line and column, from 1, of what comes after `before`; lines end where YAML says that they do."""
    lines = re.split("\r\n|[\n\r\x85\u2028\u2029]", before)
    return len(lines), len(lines[-1]) + 1


# --- Text -> nodes

_SCALAR, _LIST, _MAP, _BROKEN = "text", "a list", "a group of keys", "broken"


class _Node:
    """A value of the file and where it stands, from 1.

    `plain` says that it was written without quotes, so that YAML may have read it as something else than text. `items`
    are a list's values, or a mapping's keys and values in turn. `partial`: a syntax error cut it short. A `_BROKEN` one
    has had its fault already.
    """

    __slots__ = ("column", "items", "kind", "line", "partial", "plain", "text")

    def __init__(self, kind: str, mark: yaml.Mark, text: str = "", plain: bool = False) -> None:
        self.kind = kind
        self.line: int = mark.line + 1
        self.column: int = mark.column + 1
        self.text = text
        self.plain = plain
        self.partial = False
        self.items: list[_Node] = []

    def pairs(self) -> Iterator[tuple[_Node, _Node]]:
        """Yield keys and values; a last key whose value a syntax error took is left out."""
        return zip(self.items[::2], self.items[1::2], strict=False)


_Repaired = dict[int, tuple[int, str]]  # line -> column and text of a value that was blanked; "" if it is lost


class _Composer:
    """Put a parser's events together to one tree, without recursion; note what YAML offers and this file doesn't."""

    def __init__(self, repaired: _Repaired) -> None:
        self.faults: list[Fault] = []
        self.root: _Node | None = None
        self._stack: list[_Node] = []
        self._closed: list[_Node] = []  # since the last value: after a syntax error they may lack what came next
        self._last: _Node | None = None
        self._count = 0
        self._repaired = repaired

    def compose(self, text: str) -> None:
        """Fill `root`; raise what the parser raises, `root` then holding what was read until there."""
        try:
            for event in yaml.parse(text, Loader=_Loader):
                if not self._take(event):
                    break
        except Exception:
            self._stack += self._closed
            if self._last is not None and self._last.kind == _SCALAR:
                self._last.kind = _BROKEN  # it may have swallowed the line that is wrong
            raise
        finally:
            for node in self._stack:
                node.partial = True

    # Events are `Any` here: the stubs call every mark optional, which those of a parser never are.

    def _take(self, event: Any) -> bool:
        """Add what an event says; False ends the reading, its fault being noted."""
        kind = type(event)
        if kind is yaml.ScalarEvent:
            return self._scalar(event)
        if kind is yaml.MappingStartEvent:
            return self._open(event, _MAP)
        if kind is yaml.SequenceStartEvent:
            return self._open(event, _LIST)
        if kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._closed.append(self._stack.pop())
        elif kind is yaml.AliasEvent:
            return self._alias(event)
        elif kind is yaml.DocumentStartEvent and self.root is not None:
            self._fault(event, "a second document begins here; keep all reminders in one, without ---")
            return False
        return True

    def _scalar(self, event: Any) -> bool:
        mark = event.start_mark
        node = _Node(_SCALAR, mark, event.value, event.implicit[0])
        if node.line in self._repaired and self._repaired[node.line][0] == node.column:
            node.text = self._repaired[node.line][1]
            node.kind = _SCALAR if node.text else _BROKEN
        self._refuse_properties(event, node)
        return self._add(node)

    def _open(self, event: Any, kind: str) -> bool:
        node = _Node(kind, event.start_mark)
        self._refuse_properties(event, node)
        going_on = self._add(node)
        self._stack.append(node)
        if len(self._stack) > MAX_DEPTH:
            self._fault(event, f"this is nested more than {MAX_DEPTH} levels deep")
            return False
        return going_on

    def _alias(self, event: Any) -> bool:
        key = self._pending_key()
        if key is None or key.text != "<<":  # `<<: *base` gets one fault, at the `<<`
            shown = _in_quotes("*" + str(event.anchor))
            self._fault(event, f"aliases (*) are not taken; write the value out, or put text in quotes{shown}")
        return self._add(_Node(_BROKEN, event.start_mark))

    def _pending_key(self) -> _Node | None:
        parent = self._stack[-1] if self._stack else None
        return parent.items[-1] if parent and parent.kind == _MAP and len(parent.items) % 2 else None

    def _add(self, node: _Node) -> bool:
        if self._stack:
            self._stack[-1].items.append(node)
        else:
            self.root = node
        self._last = node
        self._closed.clear()
        self._count += 1
        if self._count > MAX_VALUES:
            self.faults.append(Fault(node.line, node.column, f"the file holds more than {MAX_VALUES:,} values"))
            return False
        return True

    def _refuse_properties(self, event: Any, node: _Node) -> None:
        if event.anchor is not None:
            self._fault(event, "anchors (&) are not taken; put a text that begins with & in quotes")
        if event.tag is not None:
            self._fault(event, "tags (!) are not taken; put a text that begins with ! in quotes")
            node.kind = _BROKEN

    def _fault(self, event: Any, message: str) -> None:
        self.faults.append(Fault(event.start_mark.line + 1, event.start_mark.column + 1, message))


def _read_tree(text: str, faults: _Faults) -> _Node | None:
    """Return the file as a tree, as far as it can be read; report its faults of syntax.

    A value that YAML chokes on (`cron: * * * * *`) is reported, blanked, and the text read again for its other faults.
    """
    repaired: _Repaired = {}
    budget = REPAIR_BUDGET
    while True:
        composer = _Composer(repaired)
        fault, unread = _compose(composer, text)
        budget -= len(text)
        if fault is not None and fault.line not in repaired:
            faults.add_at(fault.line, fault.column, fault.message)
        blanked = _blank_value(text, unread, repaired) if budget > 0 else None
        if blanked is None:
            break
        text = blanked
    for fault in composer.faults:
        faults.add_at(fault.line, fault.column, fault.message)
    if composer.root is None and not faults.found:
        faults.add_at(1, 1, _EMPTY)
    return composer.root


def _compose(composer: _Composer, text: str) -> tuple[Fault | None, int]:
    """Let `composer` read `text`; return the fault that ended it, if any, and the line whose value to blank, or 0."""
    try:
        composer.compose(text)
    except yaml.MarkedYAMLError as error:
        return _explain(error, text.splitlines())
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets some of its own conversions through: a tag with bad %-escapes, "\UFFFFFFFF" without libyaml.
        return Fault(1, 1, f"this can't be read as YAML: {error}"), 0
    return None, 0


_VALUE = re.compile(r"(\s*(?:- +)*(?:(?:[\w.-]+|\"[^\"]*\"|'[^']*'):[ \t]+)?)(\S.*?)(?:\s+#.*)?\s*")


def _split_value(line: str) -> tuple[str, str]:
    """Split a line into `key: ` (or `- `) and its value; ("", "") if it holds no such pair."""
    match = _VALUE.fullmatch(line)
    return (match[1], match[2]) if match and match[1].strip() else ("", "")


def _blank_value(text: str, number: int, repaired: _Repaired) -> str | None:
    """Return `text` with the value on line `number` made empty, and note it in `repaired`; None if that can't help."""
    lines = text.splitlines(keepends=True)
    before, value = _split_value(lines[number - 1].rstrip("\r\n")) if 0 < number <= len(lines) else ("", "")
    if not value or number in repaired:
        return None
    # What only lacks its quotes can still be judged; of brackets, quotes and blocks gone wrong nobody knows the meaning.
    repaired[number] = (len(before) + 1, "" if value[0] in "[]{}\"'|>" else value)
    lines[number - 1] = before + "''\n"
    indent = len(before) - len(before.lstrip())
    for index in range(number, len(lines)):  # the lines that continue the value
        line = lines[index]
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        lines[index] = "\n"
    return "".join(lines)


_OPENERS = {"[": "]", "{": "}"}
_INDICATORS = "*&@`%!|>,"


def _explain(error: yaml.MarkedYAMLError, lines: list[str]) -> tuple[Fault, int]:
    """Say in the user's words what the parser met; with the line whose value may be blanked to read on, or 0."""
    mark = error.problem_mark or error.context_mark
    start = error.context_mark or mark
    if mark is None or start is None:
        return Fault(1, 1, f"this can't be read as YAML: {error}"), 0
    context, problem = str(error.context), str(error.problem)
    if "quoted scalar" in context and "escape" in problem:
        return _fault(mark, "in double quotes a \\ begins an escape; write \\\\, or use single quotes"), mark.line + 1
    if "quoted scalar" in context:
        return _fault(start, "the quote that opens here is never closed"), start.line + 1
    if context.endswith(("flow sequence", "flow mapping")):
        return _explain_bracket(start, lines)
    if "simple key" in context:
        return _fault(start, "a colon and a space are missing here; write it as key: value"), 0
    if "block collection" in context:
        return _fault(mark, "the items of this list must all begin with -, in the same column"), 0
    scanned = start if context.startswith(("while scanning an a", "while scanning a block")) else mark
    return _explain_line(scanned, problem, lines[scanned.line] if scanned.line < len(lines) else "")


def _explain_bracket(start: yaml.Mark, lines: list[str]) -> tuple[Fault, int]:
    line = lines[start.line] if start.line < len(lines) else ""
    bracket = line[start.column : start.column + 1]
    what = f"the {bracket} that opens here is not closed with {_OPENERS.get(bracket, 'its like')}, or lacks a comma"
    return _fault(start, f"{what}; put text that begins with {bracket} in quotes"), _blankable(start, line)


def _blankable(mark: yaml.Mark, line: str) -> int:
    """Return the line's number, or 0 if a bracket goes on over further lines and can't be blanked as one value."""
    return 0 if line.rstrip().endswith(("[", "{", ",")) else mark.line + 1


def _explain_line(mark: yaml.Mark, problem: str, line: str) -> tuple[Fault, int]:
    before, value = _split_value(line)
    character = line[mark.column : mark.column + 1]
    if character == "\t":
        return _fault(mark, "a tab can't be used to indent; use spaces"), 0
    if not value or mark.column < len(before):
        return _explain_indent(mark, problem, line)
    if value[0] in _INDICATORS or value.startswith("- "):
        what = f"a value that begins with {value[0]} must be in quotes{_in_quotes(value)}"
        return Fault(mark.line + 1, len(before) + 1, what), mark.line + 1
    if character in _INDICATORS:  # inside of brackets
        return _fault(mark, f"a value that begins with {character} must be in quotes"), _blankable(mark, line)
    if value[0] in "\"'[{":
        what = f"there is more after the closing {_OPENERS.get(value[0], value[0])}; put the whole value in quotes"
        return _fault(mark, what), _blankable(mark, line)
    if "mapping values" in problem:
        what = f"a text that holds a colon and a space must be in quotes{_in_quotes(value)}"
        return Fault(mark.line + 1, len(before) + 1, what), mark.line + 1
    return _explain_indent(mark, problem, line)


def _explain_indent(mark: yaml.Mark, problem: str, line: str) -> tuple[Fault, int]:
    column = len(line) - len(line.lstrip()) + 1
    if "mapping values" in problem:
        what = "this line is indented like a part of the one above; indent keys alike, and end each with a colon"
        return Fault(mark.line + 1, column, what), 0
    if mark.column + 1 == column and ("expected key" in problem or "block end" in problem):
        return _fault(mark, "this line doesn't line up with the keys above it; indent keys of one reminder alike"), 0
    character = line[mark.column : mark.column + 1]
    if "cannot start any token" in problem:
        return _fault(mark, f"nothing can begin with {character} here; put the text in quotes"), 0
    return _fault(mark, f"this can't be read as YAML: {problem}"), 0


def _fault(mark: yaml.Mark, message: str) -> Fault:
    return Fault(mark.line + 1, mark.column + 1, message)


# --- Nodes -> values. Each reader returns the value or raises ValueError with a half sentence that reads on after the key.

_RESOLVER = Resolver()
_TAGS = {"int": "a number", "float": "a number", "timestamp": "a date", "null": "nothing"}
_TRUE = frozenset({"yes", "true", "on"})
_BOOLEANS = _TRUE | {"no", "false", "off"}


def _surprise(node: _Node) -> str:
    """Return what YAML 1.1 reads an unquoted value as, if not as text: "true", "a number", ...; else ""."""
    if not node.plain:
        return ""
    tag = _RESOLVER.resolve(yaml.ScalarNode, node.text, (True, False)).rpartition(":")[2]  # type: ignore[no-untyped-call]
    if tag == "bool":
        return "true" if node.text.lower() in _TRUE else "false"
    return _TAGS.get(tag, "")


def _scalar(node: _Node, right: str) -> str:
    if node.kind != _SCALAR:
        raise ValueError(f"must be {right}, not {node.kind}")
    if node.plain and not node.text:
        raise ValueError("is empty")
    return node.text


def _text(checker: Callable[[object], str], node: _Node) -> str:
    value = checker(_scalar(node, "text"))
    surprise = _surprise(node)
    if surprise:
        raise ValueError(
            f"must be text, but YAML reads {_shown(value)} as {surprise}; put it in quotes{_in_quotes(value)}"
        )
    return value


def _prompt(node: _Node) -> str:
    value = _text(wire.FIELDS[wire.PROMPT], node)
    if value.lstrip().startswith(","):
        raise ValueError("begins with a comma, so Bub would run it as a command; write it under command instead")
    return value


def _zone(node: _Node) -> str:
    value = _scalar(node, "text")
    surprise = _surprise(node)
    if surprise:
        raise ValueError(f"must be a zone's name such as Europe/Berlin, but YAML reads {_shown(value)} as {surprise}")
    return value


def _duration(node: _Node) -> int:
    value = _scalar(node, "a duration such as 30m")
    if value.isdecimal() and value.isascii():
        raise ValueError(f"needs a unit: {value[:9]}m for minutes, {value[:9]}s for seconds")
    return wire.parse_duration(value)


def _attempts(node: _Node) -> int:
    value = _scalar(node, "a whole number")
    if not node.plain or not re.fullmatch(r"-?(0|[1-9][0-9]*)", value):
        # Neither 010 (eight, for YAML) nor 1_0 nor 1:30 is worth guessing at.
        raise ValueError("must be a whole number such as 3, in plain digits and without quotes")
    return wire.check_attempts(int(value[:9]))


def _boolean(node: _Node) -> bool:
    value = _scalar(node, "true or false")
    surprise = _surprise(node)
    if surprise in {"true", "false"}:
        return surprise == "true"
    quoted = not node.plain and value.lower() in _BOOLEANS
    raise ValueError(f"must be true or false, not {surprise or 'text'}" + ("; take the quotes away" if quoted else ""))


def _choice(choices: tuple[str, ...], node: _Node) -> str:
    value = _scalar(node, " or ".join(choices))
    try:
        return wire.one_of(*choices)(value)
    except ValueError as error:
        raise ValueError(f"{error}{_nearest(value, choices)}") from error


_READERS: Mapping[str, Callable[[_Node], object]] = {
    "cron": partial(_scalar, right="text"),
    "every": _duration,
    wire.PROMPT: _prompt,
    wire.TEXT: partial(_text, wire.FIELDS[wire.TEXT]),
    wire.COMMAND: partial(_text, wire.FIELDS[wire.COMMAND]),
    "to": partial(_text, wire.FIELDS["to"]),
    "session": partial(_text, wire.FIELDS["session"]),
    "enabled": _boolean,
    "grace": _duration,
    "catch_up": partial(_choice, ("latest", "all")),
    "overlap": partial(_choice, ("skip", "queue")),
    "attempts": _attempts,
    "timeout": _duration,
    "reply": partial(_choice, ("chat", "agent")),
    "quiet": _boolean,
    "model": partial(_text, wire.FIELDS["model"]),
}
"""`at`, `timezone` and `context` have readers of their own: they report more than one fault, or ask for zones."""

REMINDER_KEYS = (
    *SCHEDULES, *wire.MESSAGES, "to", "session", "timezone", "enabled", "grace", "catch_up", "overlap", "attempts",
    "timeout", "reply", "quiet", "model", "context",
)  # fmt: skip
DEFAULT_KEYS = tuple(key for key in REMINDER_KEYS if key not in SCHEDULES + wire.MESSAGES)

_MEANT = {
    "schedule": "cron", "when": "cron", "interval": "every", "date": "at", "message": "text", "body": "text",
    "channel": "to", "chat": "to", "chat_id": "to", "target": "to", "tz": "timezone", "zone": "timezone",
    "retries": "attempts", "retry": "attempts", "disabled": "enabled", "active": "enabled", "silent": "quiet",
}  # fmt: skip

_EMPTY = "the file is empty; it must hold reminders:, and under it each reminder by its name"
_BAD = object()  # stands for a value whose fault is reported already


# --- Values -> reminders


class _Schedules:
    """Schedules and zones, each read once: of 10,000 reminders most share a few."""

    def __init__(self, machine_zone: Callable[[], str]) -> None:
        self._crons: dict[tuple[str, str], Schedule] = {}
        self.machine_zone = cache(machine_zone)
        self.zone = cache(schedule.require_zone)

    def cron(self, text: str, zone: str, name: str) -> Schedule:
        if _HASHED.search(text):
            return schedule.parse_cron(text, zone, name)
        known = self._crons.get((text, zone))
        if known is None:
            known = self._crons[text, zone] = schedule.parse_cron(text, zone, name)
        return known


# `H` makes a schedule depend on its reminder's name. The letter alone counts: thu, march and @hourly are common to all.
_HASHED = re.compile(r"(?<![A-Za-z@])H(?![A-Za-z])", re.IGNORECASE)

_Values = dict[str, Any]  # by key, as the readers return them: checked, or `_BAD`
_Entries = dict[str, tuple["_Node", "_Node"]]


class _Judge:
    """Turn the file's tree into reminders, reporting all that is wrong on the way."""

    def __init__(self, faults: _Faults, schedules: _Schedules) -> None:
        self._faults = faults
        self._schedules = schedules
        self._machine_zone_failed = False

    def file(self, root: _Node) -> list[Reminder]:
        if root.kind != _MAP:
            self._no_mapping(root)
            return []
        entries = self._entries(root, ("defaults", "reminders"), self._unknown_at_top)
        defaults = self._defaults(entries["defaults"][1]) if "defaults" in entries else {}
        if "reminders" not in entries:
            if not root.partial:
                self._faults.add(root, "reminders is missing; write reminders:, and under it each reminder by its name")
            return []
        return self._reminders(entries["reminders"][1], defaults)

    def _no_mapping(self, root: _Node) -> None:
        if root.kind == _SCALAR and root.plain and not root.text:
            self._faults.add_at(1, 1, _EMPTY)
        elif root.kind != _BROKEN:
            what = f"the file must begin with defaults: or reminders:, not with {root.kind}"
            self._faults.add(root, what)

    def _reminders(self, node: _Node, defaults: _Values) -> list[Reminder]:
        if not self._is_group(node, "reminders", "names, each with its keys"):
            return []
        reminders: list[Reminder] = []
        places: dict[str, _Node] = {}
        for name, body in node.pairs():
            if not self._is_usable_key(name):
                continue
            self._check_name(name)
            twin = places.get(name.text)
            if twin is not None:
                what = f"{_shown(name.text)} is the name of two reminders, also on line {twin.line}; give each its own"
                self._faults.add(name, what)
            places.setdefault(name.text, name)
            reminder = self._reminder(name, body, defaults)
            if reminder is not None:
                reminders.append(reminder)
        return reminders

    def _check_name(self, name: _Node) -> None:
        if not self._is_surprising_key(name) and not wire.is_name(name.text):
            self._faults.add(name, f"{_shown(name.text)} can't be a name: letters, digits, - _ . only, at most 64")

    def _defaults(self, node: _Node) -> _Values:
        if not self._is_group(node, "defaults", "a group of keys"):
            return {}
        entries = self._entries(node, DEFAULT_KEYS, self._unknown_in_defaults)
        return {key: self._value(key, value) for key, (_, value) in entries.items()}

    def _is_group(self, node: _Node, key: str, right: str) -> bool:
        """Tell whether `node` has keys; one with nothing under it (all commented out) is none, but no fault."""
        is_empty = node.kind == _SCALAR and node.plain and _surprise(node) == "nothing"
        if node.kind not in {_MAP, _BROKEN} and not is_empty:
            self._faults.add(node, f"{key} must be {right}, not {node.kind}")
        return node.kind == _MAP

    # Keys

    def _entries(self, node: _Node, known: tuple[str, ...], unknown: Callable[[str], str]) -> _Entries:
        """Return a mapping's known keys, each with its key and value; report the others and the repeated."""
        entries: _Entries = {}
        for key, value in node.pairs():
            if not self._is_usable_key(key):
                continue
            if key.text not in known:
                self._faults.add(key, unknown(key.text))
            elif key.text in entries:
                self._twice(key, entries[key.text][0])
            else:
                entries[key.text] = (key, value)
        return entries

    def _twice(self, key: _Node, first: _Node) -> None:
        self._faults.add(key, f"{key.text} stands here twice, also on line {first.line}; keep one")

    def _is_usable_key(self, key: _Node) -> bool:
        if key.kind == _SCALAR and (key.text != "<<" or not key.plain):
            return True
        if key.kind == _SCALAR:
            self._faults.add(key, "<< (a merge of keys) is not taken; write the keys out, or use defaults")
        elif key.kind != _BROKEN:
            self._faults.add(key, f"a key must be a word, not {key.kind}")
        return False

    def _is_surprising_key(self, key: _Node) -> bool:
        surprise = _surprise(key)
        if surprise:
            shown = _in_quotes(key.text)
            self._faults.add(
                key, f"YAML reads {_shown(key.text)} as {surprise}, not as a name; put it in quotes{shown}"
            )
        return bool(surprise)

    @staticmethod
    def _unknown_at_top(key: str) -> str:
        if key in DEFAULT_KEYS:
            return f"{key} belongs under defaults: or to a reminder"
        where = "; a reminder goes under reminders:, indented"
        return f"unknown key {_shown(key)}{_nearest(key, ('defaults', 'reminders')) or where}"

    @staticmethod
    def _unknown_in_defaults(key: str) -> str:
        if key in REMINDER_KEYS:
            return f"{key} can't be a default; every reminder has its own"
        return _unknown(key, DEFAULT_KEYS)

    @staticmethod
    def _unknown_in_reminder(key: str) -> str:
        return _unknown(key, REMINDER_KEYS)

    # Values

    def _value(self, key: str, node: _Node) -> object:
        """Return the value of a reminder's key, or `_BAD` once its faults are reported."""
        if node.kind == _BROKEN:
            return _BAD
        try:
            if key == "at":
                return self._at(node)
            if key == "context":
                return self._context(node)
            if key == "timezone":
                return self._schedules.zone(_zone(node))
            return _READERS[key](node)
        except ScheduleError as error:
            self._faults.add(node, str(error))
        except ValueError as error:
            self._faults.add(node, f"{key} {error}")
        return _BAD

    def _at(self, node: _Node) -> object:
        """Return the nodes of an `at`; each is a local date and time, read once the zone is known."""
        items = node.items if node.kind == _LIST else [node]
        if not items:
            raise ValueError("is empty")
        good: list[_Node] = []
        for item in items:
            try:
                if item.kind != _BROKEN:
                    _scalar(item, "a date and time such as 2026-12-01 08:30")
                    good.append(item)
            except ValueError as error:
                self._faults.add(item, f"at {error}")
        return good or _BAD

    def _context(self, node: _Node) -> object:
        if node.kind != _MAP:
            _scalar(node, "words, each with a text")
            raise ValueError(f"must be words, each with a text, not {_surprise(node) or node.kind}")
        context: dict[str, str] = {}
        places: dict[str, _Node] = {}
        before = len(self._faults.found)
        for key, value in node.pairs():
            if not self._is_usable_key(key) or self._is_surprising_key(key):
                continue
            if key.text in places:
                self._twice(key, places[key.text])
            places.setdefault(key.text, key)
            self._context_entry(key, value, context)
        wire.check_context(context)  # the number of entries is all that is left to be wrong
        return context if len(self._faults.found) == before else _BAD

    def _context_entry(self, key: _Node, value: _Node, context: dict[str, str]) -> None:
        try:
            wire.check_context({key.text: "fine"})
        except ValueError as error:
            self._faults.add(key, f"context {error}")
            return
        try:
            if value.kind != _BROKEN:
                context[key.text] = _text(lambda text: wire.check_context({key.text: text})[key.text], value)
        except ValueError as error:
            what = str(error).removeprefix(f"has a bad value: {key.text} ")
            self._faults.add(value, f"context.{key.text} {what}{'; write "" for none' if what == 'is empty' else ''}")

    # One reminder

    def _reminder(self, name: _Node, node: _Node, defaults: _Values) -> Reminder | None:
        """Return the reminder, or None when something it can't do without is wrong."""
        if node.kind != _MAP:
            if node.kind != _BROKEN:
                what = "is empty" if _surprise(node) == "nothing" else f"must be a group of keys, not {node.kind}"
                self._faults.add(name, f"{_shown(name.text)} {what}; it needs a schedule, a message and a target (to)")
            return None
        entries = self._entries(node, REMINDER_KEYS, self._unknown_in_reminder)
        given = {key: self._value(key, value) for key, (_, value) in entries.items()}
        values = {**defaults, **given}
        when = self._exactly_one(name, node, entries, SCHEDULES, "schedule")
        what = self._exactly_one(name, node, entries, wire.MESSAGES, "message")
        if "to" not in values and not node.partial:
            right = "to: telegram:123456789 (channel:chat_id), here or under defaults"
            self._faults.add(name, f"{_shown(name.text)} has no target; write {right}")
        # Of two schedules neither is the one meant, but each is judged by itself.
        plans = {key: self._schedule(key, entries[key][1], values, name) for key in SCHEDULES if key in entries}
        plan = plans.get(when)
        if plan is None or not what or "to" not in values or _BAD in values.values():
            return None
        reminder = _build(name, plan, _schedule_text(entries[when][1]), what, values)
        self._check_size(reminder, entries[what][1])
        return reminder

    def _exactly_one(self, name: _Node, node: _Node, entries: _Entries, kinds: tuple[str, ...], noun: str) -> str:
        """Return the one kind that is there; "" once it is reported that none or several are."""
        found = [kind for kind in entries if kind in kinds]
        if len(found) > 1:
            self._faults.add(
                entries[found[1]][0], f"{_shown(name.text)} has two {noun}s, {' and '.join(found)}; keep one"
            )
        elif not found and not node.partial:
            choices = f"{', '.join(kinds[:-1])} or {kinds[-1]}"
            self._faults.add(name, f"{_shown(name.text)} has no {noun}; give it one of {choices}")
        return found[0] if len(found) == 1 else ""

    def _schedule(self, kind: str, node: _Node, values: _Values, name: _Node) -> Schedule | None:
        value = values[kind]
        zone = values.get("timezone")
        if value is _BAD:
            return None
        if zone is None and kind != "every":
            zone = self._zone_of_machine(name)
        zone_name = zone if isinstance(zone, str) else "UTC"  # a bad zone has its fault; the times may have theirs
        try:
            if kind == "cron":
                return self._schedules.cron(value, zone_name, name.text)
            if kind == "every":
                return schedule.parse_every(value)
        except ScheduleError as error:
            self._faults.add(node, str(error))
            return None
        return self._at_schedule(node, value, zone_name)

    def _at_schedule(self, node: _Node, items: list[_Node], zone: str) -> Schedule | None:
        before = len(self._faults.found)
        for item in items:
            try:
                schedule.parse_at([item.text], zone)
            except ScheduleError as error:
                self._faults.add(item, str(error))
        if len(self._faults.found) > before:
            return None
        try:
            return schedule.parse_at([item.text for item in items], zone)
        except ScheduleError as error:  # fine one by one, but not together
            self._faults.add(node, str(error))
            return None

    def _zone_of_machine(self, name: _Node) -> str:
        if self._machine_zone_failed:
            return "UTC"
        try:
            return self._schedules.machine_zone()
        except ScheduleError as error:
            self._machine_zone_failed = True
            self._faults.add(name, str(error))
            return "UTC"

    def _check_size(self, reminder: Reminder, message: _Node) -> None:
        """Report a reminder that would not fit a line of the protocol; JSON makes at most six bytes of a character."""
        length = len(reminder.body) + sum(len(key) + len(value) for key, value in reminder.context.items())
        if 6 * length < MAX_REQUEST // 2:
            return
        size = len(wire.encode(reminder.content()))
        if size > MAX_REQUEST:
            what = f"{reminder.kind} is too long: with the other keys it makes {size:,} bytes of {MAX_REQUEST:,}"
            self._faults.add(message, what)


def _unknown(key: str, known: tuple[str, ...]) -> str:
    meant = _MEANT.get(key.lower())
    near = f", did you mean {meant!r}?" if meant in known else _nearest(key, known)
    return f"unknown key {_shown(key)}{near or '; known are ' + ', '.join(known)}"


def _schedule_text(node: _Node) -> str:
    return ", ".join(item.text for item in node.items) if node.kind == _LIST else node.text


def _build(name: _Node, plan: Schedule, plan_text: str, kind: str, values: _Values) -> Reminder:
    """Fill in the defaults; every value was checked by its reader."""
    to: str = values["to"]
    attempts = wire.DEFAULT_COMMAND_ATTEMPTS if kind == wire.COMMAND else wire.DEFAULT_ATTEMPTS
    return Reminder(
        name=name.text,
        schedule=plan,
        schedule_text=plan_text,
        kind=kind,
        body=values[kind],
        to=to,
        session=values.get("session", to),
        timezone=values.get("timezone", plan.zone),
        enabled=values.get("enabled", True),
        grace=values.get("grace", DEFAULT_AT_GRACE if plan.kind == "at" else DEFAULT_GRACE),
        catch_up=values.get("catch_up", DEFAULT_CATCH_UP),
        overlap=values.get("overlap", wire.DEFAULT_OVERLAP),
        attempts=values.get("attempts", attempts),
        timeout=values.get("timeout", wire.DEFAULT_TIMEOUT),
        reply=values.get("reply", wire.DEFAULT_REPLY),
        quiet=values.get("quiet", False),
        model=values.get("model"),
        context=dict(values.get("context", {})),
        line=name.line,
        column=name.column,
    )


# --- What is legal but suspicious


def suspicions(reminders: list[Reminder], now: int) -> list[Notice]:
    """Return what is legal but may not be meant, sorted by line; `now` is seconds since the epoch.

    Reminders that are not enabled are left out.
    """
    notices: list[Notice] = []
    clock = _Clock(now)
    first_of: dict[tuple[Schedule, str, str, str], Reminder] = {}
    for reminder in (one for one in reminders if one.enabled):
        twin = first_of.setdefault((reminder.schedule, reminder.to, reminder.kind, reminder.body), reminder)
        messages = [_both_days(reminder), _often(reminder, now), _past(reminder, now), *clock.messages(reminder)]
        if twin is not reminder:
            messages.append(f"has the schedule, target and message of {twin.name} on line {twin.line}: both will fire")
        notices += [
            Notice(reminder.line, reminder.column, f"{reminder.name} {text}") for text in messages if text is not None
        ]
    return sorted(notices, key=lambda notice: (notice.line, notice.column))


def _both_days(reminder: Reminder) -> str | None:
    fields = reminder.schedule_text.split()
    if reminder.schedule.kind != "cron" or len(fields) != 5 or {"*", "*/1"} & {fields[2], fields[4]}:
        return None
    return f"restricts both day of month and day of week: it fires {schedule.describe(reminder.schedule)}"


def _often(reminder: Reminder, now: int) -> str | None:
    """Judge the day that begins with the next fire time, so that `* * * * mon` counts, too."""
    first = schedule.next_fire_time(reminder.schedule, now) if reminder.kind == wire.PROMPT else None
    if first is None:
        return None
    count = sum(1 for _ in schedule.fire_times(reminder.schedule, first - 1, first - 1 + 86400))
    return f"runs a model {count:,} times a day" if count >= 1000 else None


def _past(reminder: Reminder, now: int) -> str | None:
    is_past = reminder.schedule.kind == "at" and schedule.next_fire_time(reminder.schedule, now) is None
    return f"is past: {reminder.schedule_text} will not come again" if is_past else None


class _Clock:
    """Find the times of fixed schedules that a zone's clock skips or repeats within a year after `now`.

    A schedule read as if in UTC gives the wall clock's times as plain numbers; those inside a change are the ones.
    """

    def __init__(self, now: int) -> None:
        self._now = now
        self._schedules = _Schedules(lambda: "UTC")
        self._changes = cache(self._find_changes)

    def messages(self, reminder: Reminder) -> Iterator[str]:
        """Yield a sentence for the first skipped and one for the first repeated time."""
        wall = self._as_wall(reminder)
        if wall is None:
            return
        told: set[bool] = set()
        for instant, before, after in self._changes(reminder.schedule.zone):
            low, high = sorted((instant + before, instant + after))
            time = next(schedule.fire_times(wall, low - 1, high - 1), None)
            is_skipped = after > before
            if time is None or is_skipped in told or _is_hourly(wall, low):
                continue
            told.add(is_skipped)
            what = _skipped if is_skipped else _repeated
            yield what(reminder.schedule, time, instant, before, after)

    def _as_wall(self, reminder: Reminder) -> Schedule | None:
        text = reminder.schedule_text
        if reminder.schedule.kind == "cron" and not _follows_clock(text):
            return self._schedules.cron(text, "UTC", reminder.name)
        if reminder.schedule.kind == "at":
            local = [value for value in text.split(", ") if not _WITH_OFFSET.search(value)]
            return schedule.parse_at(local, "UTC") if local else None
        return None

    def _find_changes(self, zone: str) -> list[tuple[int, int, int]]:
        """Return (instant, offset before, offset after), in seconds, of the zone's changes within a year."""
        offset = partial(_offset, ZoneInfo(zone))
        changes: list[tuple[int, int, int]] = []
        for start in range(self._now, self._now + 366 * 86400, 43200):
            low, high = start, start + 43200
            if offset(low) == offset(high):
                continue
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == offset(start) else (low, middle)
            changes.append((high, offset(low), offset(high)))
        return changes


_WITH_OFFSET = re.compile(r"(Z|[+-][0-9]{2}:[0-9]{2}) *$")


def _follows_clock(text: str) -> bool:
    """Tell whether a cron expression is one that clock changes leave alone: schedule.py's rule 1."""
    fields = text.split()
    return text.strip().lower() == "@hourly" or any(field.startswith("*") for field in fields[:2])


def _is_hourly(wall: Schedule, around: int) -> bool:
    """Tell whether one skipped or repeated time more or less would not be noticed, as with `0 0-23 * * *`."""
    return sum(1 for _ in islice(schedule.fire_times(wall, around - 43200, around + 43200), 24)) == 24


def _offset(zone: ZoneInfo, instant: int) -> int:
    return int((datetime.fromtimestamp(instant, zone).utcoffset() or timedelta()).total_seconds())


def _wall(seconds: int, form: str) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime(form)


def _skipped(plan: Schedule, time: int, instant: int, before: int, after: int) -> str:
    fires = next(schedule.fire_times(plan, instant - 1, instant), None) is not None
    what = f"it fires at {_wall(instant + after, '%H:%M')} instead" if fires else "it doesn't fire then"
    where = f"{_wall(time, '%H:%M')} doesn't exist on {_wall(time, '%Y-%m-%d')}"
    return f"meets a change of clocks: in {plan.zone}, {where}; {what}"


def _repeated(plan: Schedule, time: int, instant: int, before: int, after: int) -> str:
    again = time - after
    twice = next(schedule.fire_times(plan, again - 1, again), None) is not None
    where = f"{_wall(time, '%H:%M')} comes twice on {_wall(time, '%Y-%m-%d')}"
    return f"meets a change of clocks: in {plan.zone}, {where}; it fires {'both times' if twice else 'the first time'}"


# --- For editors, and for people who begin

_DURATION = r"^(?=.)([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$"
_LINE: Mapping[str, object] = {"type": "string", "minLength": 1, "maxLength": 512, "pattern": r"^\S(.*\S)?$"}
_MESSAGE: Mapping[str, object] = {"type": "string", "maxLength": wire.MAX_LINE, "pattern": r"\S"}
_AT: Mapping[str, object] = {
    "type": "string",
    "pattern": r"^ *[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:00)? ?(Z|[+-][0-9]{2}:[0-9]{2})? *$",
}

_KEY_SCHEMAS: Mapping[str, Mapping[str, object]] = {
    "cron": {
        "description": "Five fields: minute, hour, day of month, month, day of week. Names, lists, ranges, steps, L, #, "
        "H for a stable spread; or @daily and its kin. Put it in quotes.",
        "type": "string",
        "pattern": r"^\s*(@[A-Za-z]+|\S+(\s+\S+){4})\s*$",
    },
    "every": {
        "description": "A distance in whole minutes, such as 30m or 2h, counted from the Unix epoch in UTC.",
        "type": "string",
        "pattern": _DURATION,
    },
    "at": {
        "description": "A local date and time such as 2026-12-01 08:30, or a list of them.",
        "oneOf": [_AT, {"type": "array", "minItems": 1, "items": _AT}],
    },
    "prompt": {
        **_MESSAGE,
        "description": "What a turn of the agent is run with; its reply goes to the chat.",
        "pattern": r"^\s*[^,\s]",
    },
    "text": {**_MESSAGE, "description": "Sent word for word: no model, no tokens."},
    "command": {**_MESSAGE, "description": "A Bub command; runs only if the gateway allows commands."},
    "to": {
        "description": "Where it goes: channel:chat_id. Everything after the first colon is the chat id.",
        "type": "string",
        "maxLength": 512,
        "pattern": r"^[A-Za-z0-9._-]{1,64}:(.*\S)$",
    },
    "session": {**_LINE, "description": "The Bub session that the turn belongs to. Default: the same as `to`."},
    "timezone": {**_LINE, "description": "An IANA name such as Europe/Berlin. Default: the machine's zone."},
    "enabled": {"description": "false keeps the reminder from firing.", "type": "boolean", "default": True},
    "grace": {
        "description": "How late it may still start. Default: 1h, and 24h for `at`.",
        "type": "string",
        "pattern": _DURATION,
    },
    "catch_up": {
        "description": "Of the fire times missed within grace, start the latest or all.",
        "enum": ["latest", "all"],
        "default": DEFAULT_CATCH_UP,
    },
    "overlap": {
        "description": "When an earlier firing still runs: skip this one, or queue it.",
        "enum": ["skip", "queue"],
        "default": wire.DEFAULT_OVERLAP,
    },
    "attempts": {
        "description": "Starts allowed; 1 means at most once. Default: 3, and 1 for `command`.",
        "type": "integer",
        "minimum": 1,
        "maximum": 100,
    },
    "timeout": {
        "description": "The limit of one attempt.",
        "type": "string",
        "pattern": _DURATION,
        "default": f"{wire.DEFAULT_TIMEOUT // 60}m",
    },
    "reply": {
        "description": "chat: the turn's reply goes to the chat. agent: the agent sends by its own channel skill.",
        "enum": ["chat", "agent"],
        "default": wire.DEFAULT_REPLY,
    },
    "quiet": {
        "description": "true: the model may answer <no_reply/>, and nothing is sent.",
        "type": "boolean",
        "default": False,
    },
    "model": {**_LINE, "description": "A Bub model id for this reminder alone."},
    "context": {
        "description": "Strings added to the message's context, such as thread_id.",
        "type": "object",
        "maxProperties": 32,
        "propertyNames": {"pattern": r"^(?!_)(?!(channel|chat_id|model)$)[A-Za-z0-9._-]{1,64}$"},
        "additionalProperties": {"type": "string", "maxLength": 1024},
    },
}


def json_schema() -> dict[str, object]:
    """Return the JSON Schema of the file, from which a YAML language server completes and checks.

    It can't say everything that `parse` does: whether a schedule ever fires, a zone exists, a request fits its line.
    """
    reminder = {
        "description": "One reminder: one of cron, every, at; one of prompt, text, command; and to.",
        "type": "object",
        "properties": {key: dict(_KEY_SCHEMAS[key]) for key in REMINDER_KEYS},
        "additionalProperties": False,
        "allOf": [
            {"oneOf": [{"required": [key]} for key in SCHEDULES]},
            {"oneOf": [{"required": [key]} for key in wire.MESSAGES]},
        ],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bub-cron reminders",
        "type": "object",
        "properties": {
            "defaults": {
                "description": "Values for every reminder that doesn't give its own.",
                "type": ["object", "null"],
                "properties": {key: dict(_KEY_SCHEMAS[key]) for key in DEFAULT_KEYS},
                "additionalProperties": False,
            },
            "reminders": {
                "description": "Each reminder by its name: letters, digits, -, _ and ., at most 64.",
                "type": ["object", "null"],
                "patternProperties": {"^[A-Za-z0-9._-]{1,64}$": {"$ref": "#/$defs/reminder"}},
                "additionalProperties": False,
            },
        },
        "required": ["reminders"],
        "additionalProperties": False,
        "if": {"required": ["defaults"], "properties": {"defaults": {"type": "object", "required": ["to"]}}},
        "else": {"properties": {"reminders": {"additionalProperties": {"required": ["to"]}}}},
        "$defs": {"reminder": reminder},
    }


STARTER = """\
# yaml-language-server: $schema=./reminders.schema.json
# That line lets an editor complete and check this file, once the schema lies beside it:
#     bub-cron schema > reminders.schema.json
#
# After an edit, `bub-cron check` prints every fault and `bub-cron next` when what fires. Changes count from the next
# minute on. To try an example, take away the `# ` before its lines.

# What every reminder has unless it says otherwise: any key but the schedule and the message.
defaults:
  to: telegram:123456789  # channel:chat_id; put your own here
  # timezone: Europe/Berlin  # an IANA name; without it, the machine's zone

reminders:
  hello:
    enabled: false  # delete this line, or make it true, once `to` is right
    cron: "0 9 * * mon-fri"  # minute, hour, day of month, month, day of week; always in quotes
    text: Good morning.

# A turn of the agent, and its reply in the chat. A long prompt goes below a `|`.
  # standup:
  #   cron: "30 9 * * mon-fri"
  #   prompt: |
  #     Summarise what changed in the repository since yesterday.
  #     At most five lines.

# Once, or at each time of a list.
  # dentist:
  #   at: 2036-12-01 08:30
  #   text: Dentist at 10:00.

# At a steady distance. With `quiet` the model may answer <no_reply/>, and nothing is sent.
  # inbox:
  #   every: 30m
  #   prompt: Anything urgent in the inbox?
  #   quiet: true

# A Bub command, if the gateway allows commands; and the keys that are left, with what they are when not given.
  # backup:
  #   cron: "H 3 * * *"  # H: some minute, always the same one for this name
  #   command: ",backup --now"
  #   session: telegram:123456789  # the same as to
  #   grace: 1h  # how late it may still start; 24h for at
  #   catch_up: latest  # or all: which of the missed fire times to start
  #   overlap: skip  # or queue: when an earlier one still runs
  #   attempts: 1  # starts allowed; 3 for prompt and text
  #   timeout: 10m  # the limit of one attempt
  #   reply: chat  # or agent: the agent sends by itself
"""
