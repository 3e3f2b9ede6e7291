"""Hear what a channel's code logs while it sends.

Some channels log an error and return as if nothing had been; their log is the only evidence.

Invariants:
- Only what is logged in a task that sends, or in what it starts (a child task, a thread by `asyncio.to_thread`), is heard:
  a context variable tells. All other records cost one look at it.
- One loguru sink and one `logging` factory for the process, from the first send until `close()`. Neither changes what
  anybody else's logging does. Where somebody has removed our sink, the next send adds it again.
- Our own lines are not heard, nor those of asyncio and of `warnings`: these come up whenever the garbage is collected,
  and are about other things.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from loguru import logger

from bub_cron.errors import one_line
from bub_cron.gateway.channels.facts import Facts
from bub_cron.gateway.proof import causes

if TYPE_CHECKING:
    from loguru import Message, Record

_NOT_HEARD = ("bub_cron", "asyncio", "py.warnings")
_INFO, _WARNING = 20, 30
_MOST_HEARD = 20


class Heard(NamedTuple):
    """One line that was logged, and the exception that was being handled when it was."""

    text: str
    handled: BaseException | None


@dataclass(slots=True, eq=False)
class Watch:
    """What is heard during one send, from `begin` in the task that sends. Who looks once it is over."""

    facts: Facts
    heard: list[Heard] = field(default_factory=list)

    def begin(self) -> None:
        """Hear what the current task, and whatever it starts from now on, logs."""
        _WATCH.set(self)

    def doubt(self, error: BaseException | None = None) -> str | None:
        """Return what was logged that speaks against what the send came to, None if nothing does.

        What was logged while the very `error` was handled that the send raised, or its cause, says no more than the error
        itself.
        """
        own = set() if error is None else {id(one) for one in causes(error)}
        return next((heard.text for heard in self.heard if id(heard.handled) not in own), None)

    def hear(self, source: str, level: int, text: str) -> None:
        """Take a line that was logged in the sending task."""
        if len(self.heard) >= _MOST_HEARD or _is_of(source, _NOT_HEARD):
            return
        if level >= _WARNING:
            counts = not _is_of(source, self.facts.chatter)
        else:
            counts = text.startswith(self.facts.drops) if self.facts.drops else False
        if counts:
            self.heard.append(Heard(one_line(text), sys.exception()))


_WATCH: ContextVar[Watch | None] = ContextVar("bub_cron_watch", default=None)


class Ears:
    """The sink and the factory by which watches hear. Until the first watch, and after `close()`, neither is there."""

    def __init__(self) -> None:
        self._sink: int | None = None
        self._undo: Callable[[], None] = lambda: None

    def watch(self, facts: Facts) -> Watch:
        """Return a watch for one send, not yet begun."""
        if self._sink is None:
            self._undo = _install_factory()
        if self._sink is None or not _has_sink(self._sink):
            self._sink = logger.add(_take, level=_INFO, filter=_is_watched, format=_format)
        return Watch(facts)

    def close(self) -> None:
        """Leave logging as it was found."""
        if self._sink is not None and _has_sink(self._sink):
            logger.remove(self._sink)
        self._sink = None
        self._undo()
        self._undo = lambda: None


def _has_sink(sink: int) -> bool:
    # loguru has no public way to ask. Without its inside we'd hear nothing after a `logger.remove()`.
    handlers = getattr(getattr(logger, "_core", None), "handlers", None)
    return handlers is None or sink in handlers


def _is_watched(record: Record) -> bool:
    return _WATCH.get() is not None


def _format(record: Record) -> str:
    return ""  # the sink looks at the record; a format as text would render a traceback, too


def _take(message: Message) -> None:
    watch = _WATCH.get()
    if watch is not None:
        record = message.record
        watch.hear(record["name"] or "", record["level"].no, record["message"])


def _install_factory() -> Callable[[], None]:
    """Hear the standard library's logging; return what undoes that.

    By the factory of records: a handler at the root would miss loggers that don't propagate, and would change what
    `logging.lastResort` and `basicConfig` do.
    """
    before = logging.getLogRecordFactory()
    is_on = True

    def factory(*arguments: Any, **named: Any) -> logging.LogRecord:
        record = before(*arguments, **named)
        if is_on and (watch := _WATCH.get()) is not None and record.levelno >= _INFO:
            try:
                text = record.getMessage()
            except Exception:
                text = str(record.msg)  # a mistake in the caller's arguments; logging itself prints it
            watch.hear(record.name, record.levelno, text)
        return record

    def undo() -> None:
        nonlocal is_on
        is_on = False  # should somebody have put a factory of his own around ours
        if logging.getLogRecordFactory() is factory:
            logging.setLogRecordFactory(before)

    logging.setLogRecordFactory(factory)
    return undo


def _is_of(source: str, names: tuple[str, ...]) -> bool:
    return any(source == name or source.startswith(f"{name}.") for name in names)
