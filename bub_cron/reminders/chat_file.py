"""The drop-in `chat.yaml`: the reminders made in chat, and the one file that the program itself writes.

Invariants:
- Who reads it finds the version before a change or the one after it, whole, whatever is killed when. Writers take turns.
- What is written was judged before by the parser that the tick uses, so no change makes a fault.
- What somebody wrote into it by hand stays, with the comment lines right above an entry; all other comments go.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml
from yaml.resolver import Resolver

from bub_cron import schedule
from bub_cron.errors import ChatFileError, FileMissingError, FileUnreadableError, ScheduleError, UnknownReminderError
from bub_cron.reminders.faults import Faults
from bub_cron.reminders.file import parse, read_source, seen
from bub_cron.reminders.reminder import Reminder
from bub_cron.reminders.source import LIST, MAP, SCALAR, Node, decode, read

MADE = "# made "
"""Begins the comment above an entry that was made in chat."""
_HEAD = """\
# Reminders made in chat. The gateway writes this file anew at each change: ask
# your agent, or edit it by hand. Entries that you write here stay, with the
# comment lines right above them; all other comments go. A reminder made in chat
# that has fired for the last time is removed a week later.
"""
_PLAIN = frozenset({"times", "quiet", "enabled"})  # keys whose values mean something else in quotes
_ODD_BREAKS = frozenset("\r\x85\u2028\u2029")  # YAML makes a blank or a newline of them, unless they are escaped
_RESOLVER = Resolver()
_TRIES = 5  # at a file that somebody saves at the same moment


class ChatFile:
    """The file's entries, to be changed; what is changed counts once it is written."""

    def __init__(self, path: str, source: bytes, machine_zone: Callable[[], str]) -> None:
        self.path = path
        self._machine_zone = machine_zone
        parsed = parse(source, path, machine_zone=machine_zone) if source else []
        self.reminders = {reminder.name: reminder for reminder in parsed}
        self._others: list[Node] = []  # keys and values of the file in turn, without `reminders`
        self._entries: dict[str, Node] = {}
        self._comments: dict[str, list[str]] = {}
        text = decode(source, Faults())
        root, _ = read(text, Faults())
        for key, value in root.pairs():
            if key.text != "reminders":
                self._others += [key, value]
                continue
            for name, body in value.pairs():
                self._entries[name.text] = body
                self._comments[name.text] = _comments_above(text.splitlines(), name)

    def put(self, name: str, values: Mapping[str, object], comment: str) -> None:
        """Add an entry with these keys; `comment` is one line, which begins with `#`."""
        self._entries[name] = _group(values)
        self._comments[name] = [comment]

    def change(self, name: str, values: Mapping[str, object], comment: str) -> None:
        """Replace keys of an entry; None removes one. Of its comments, only the one with the same first two words is replaced."""
        entry = self._entries[name]
        kept = [pair for pair in entry.pairs() if pair[0].text not in values]
        given = _group({key: value for key, value in values.items() if value is not None})
        entry = self._entries[name] = Node(MAP, entry.line, entry.column)
        entry.items = [node for pair in (*kept, *given.pairs()) for node in pair]
        begin = comment.split()[:2]
        self._comments[name] = [line for line in self._comments[name] if line.split()[:2] != begin] + [comment]

    def remove(self, name: str) -> None:
        """Remove an entry; UnknownReminderError if there is none of this name."""
        if self._entries.pop(name, None) is None:
            raise UnknownReminderError(f"{self.path} has no reminder {name}")

    def is_made_in_chat(self, name: str) -> bool:
        """Tell whether an entry was made in chat, not by hand."""
        return any(line.startswith(MADE) for line in self._comments[name])

    def judged(self) -> dict[str, Reminder]:
        """Return the reminders as they are changed, by name; FileFaultsError if something about them is wrong."""
        changed = parse(self.source(), self.path, machine_zone=self._machine_zone)
        return {reminder.name: reminder for reminder in changed}

    def source(self) -> bytes:
        """Return the file's bytes as it is to be written."""
        others = Node(MAP, 1, 1)
        others.items = self._others
        parts = [f"{_HEAD}\n", f"{_dumped(others)}\n" if self._others else "", "reminders:\n"]
        for name, entry in self._entries.items():
            group = Node(MAP, 1, 1)
            group.items = [_scalar(name), entry]
            lines = [*self._comments[name], *_dumped(group).split("\n")]
            parts.append("\n".join(f"  {line}" if line else "" for line in lines))
            parts.append("\n")
        return ("".join(parts).rstrip("\n") + "\n").encode()


def edit[Result](
    path: str,
    change: Callable[[ChatFile], Result],
    machine_zone: Callable[[], str] = schedule.machine_zone,
) -> Result:
    """Let `change` change the file, and write it if it did; return what `change` returns.

    Others that edit it so wait meanwhile. If somebody saves it by hand at the same moment, `change` is called again with
    what was saved. Raises FileFaultsError or FileUnreadableError if the file can't be read, ChatFileError if it can't be
    written, and what `change` raises; then nothing was written.
    """
    with _locked(os.path.dirname(path)):
        for _ in range(_TRIES):
            source, before = _source_of(path)
            file = ChatFile(path, source, machine_zone)
            result = change(file)
            changed = file.source()
            if changed == source:
                return result
            file.judged()
            if _write(path, changed, before):
                return result
    raise FileUnreadableError(f"{path} is being written: it changed each time that it was read", path)


def remove(path: str, name: str) -> None:
    """Remove a reminder that was made in chat. Raises UnknownReminderError, and what `edit` raises."""
    edit(path, lambda file: file.remove(name))


def default_zone(path: str) -> str | None:
    """Return the zone of a file's `defaults`; None if it gives none, or no known one, or can't be read."""
    try:
        source, _ = read_source(path)
    except (FileMissingError, FileUnreadableError):
        return None
    root, _ = read(decode(source, Faults()), Faults())
    for key, value in root.pairs():
        if key.text == "defaults":
            for name, zone in value.pairs():
                if name.text == "timezone":
                    with contextlib.suppress(ScheduleError):
                        return schedule.require_zone(zone.text)
    return None


def _comments_above(lines: list[str], name: Node) -> list[str]:
    """Return the comment lines right above an entry. One that is indented deeper belongs to a text of the entry before."""
    comments: list[str] = []
    for line in reversed(lines[: name.line - 1]):
        if not line.lstrip(" ").startswith("#") or line.index("#") >= name.column:
            break
        comments.insert(0, line.strip())
    return comments


# Nodes


def _group(values: Mapping[str, object]) -> Node:
    node = Node(MAP, 1, 1)
    for key, value in values.items():
        node.items += [_scalar(key), _listed(value) if isinstance(value, list) else _scalar(value, plain=key in _PLAIN)]
    return node


def _listed(values: list[object]) -> Node:
    node = Node(LIST, 1, 1)
    node.items = [_scalar(value) for value in values]
    return node


def _scalar(value: object, *, plain: bool = False) -> Node:
    return Node(SCALAR, 1, 1, str(value).lower() if isinstance(value, bool) else str(value), plain)


class _Dumper(yaml.SafeDumper):
    """Writes a list's dashes below its key, not beside it."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _dumped(node: Node) -> str:
    text: str = yaml.serialize(_yaml_node(node), Dumper=_Dumper, allow_unicode=True, width=1_000_000)
    return text


def _yaml_node(node: Node) -> Any:
    if node.kind == MAP:
        pairs = [(_yaml_node(key), _yaml_node(value)) for key, value in node.pairs()]
        return yaml.MappingNode("tag:yaml.org,2002:map", pairs, flow_style=False)
    if node.kind == LIST:
        return yaml.SequenceNode("tag:yaml.org,2002:seq", [_yaml_node(item) for item in node.items], flow_style=False)
    if node.plain:
        tag = _RESOLVER.resolve(yaml.ScalarNode, node.text, (True, False))  # type: ignore[no-untyped-call]
        return yaml.ScalarNode(tag, node.text)
    style = '"' if _ODD_BREAKS.intersection(node.text) else "|" if "\n" in node.text else None
    return yaml.ScalarNode("tag:yaml.org,2002:str", node.text, style=style)


# The disk


@contextlib.contextmanager
def _locked(directory: str) -> Iterator[None]:
    """Keep other writers out, by a lock on the directory, which needs no file of its own."""
    try:
        os.makedirs(directory, mode=0o700, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ChatFileError(f"{directory} can't be used for reminders made in chat: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _source_of(path: str) -> tuple[bytes, tuple[int, ...] | None]:
    try:
        return read_source(path)
    except FileMissingError:
        return b"", None


def _write(path: str, source: bytes, before: tuple[int, ...] | None) -> bool:
    """Replace the file; return False, with nothing written, if it is no longer the one that was read.

    The writer's lock is held, so the temporary file is nobody else's: at most one is ever left over. Its name begins with a
    dot, so it is no drop-in.
    """
    directory, name = os.path.split(path)
    temporary = os.path.join(directory, f".{name}.new")
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            if os.geteuid() == 0:  # it stays the gateway's own, whoever changes it
                owner = os.stat(path if before else directory)
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.write(source)
            file.flush()
            os.fsync(file.fileno())
        if seen(path) != before:
            return False
        os.rename(temporary, path)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ChatFileError(f"{path} can't be written: {error.strerror}") from error
    return True
