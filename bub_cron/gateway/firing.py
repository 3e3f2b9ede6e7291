"""One firing and its messages as the gateway knows them, and what the socket says of them.

Invariants: what the socket says of a firing is made here alone; no text of a message is in a `repr`, so none is in a log.
"""

from __future__ import annotations

import sqlite3
from typing import Any, NamedTuple

from bub_cron.states import DELIVERED, FINAL, MESSAGE_OPEN, RETRYING, WAITING
from bub_cron.wire import COMMAND, TEXT, Request, iso, stored_request

PING = "ping"
"""The kind of a message to a monitor, and its `to`: the address is a secret, and stands in the request alone."""


class Message(NamedTuple):
    """One text on its way to one chat: a row of `messages`. Instants are epoch seconds.

    `content` None stands for the whole text of its firing. `until` is when a refused one is given up.
    """

    number: int
    kind: str
    to: str
    until: float
    content: str | None = None
    state: str = WAITING
    sends: int = 0
    reason: str | None = None
    error: str | None = None
    not_before: float | None = None
    finished_at: float | None = None

    def __repr__(self) -> str:
        return f"<message {self.number}, {self.kind} to {self.to}: {self.state}>"

    @property
    def is_final(self) -> bool:
        return self.state not in MESSAGE_OPEN

    @property
    def decides(self) -> bool:
        """Whether the firing's outcome depends on it."""
        return self.kind in ("reply", "copy")

    def answer(self) -> dict[str, Any]:
        said = {"kind": self.kind, "to": self.to, "state": self.state, "sends": self.sends}
        return said if self.error is None else {**said, "error": self.error}


class Firing(NamedTuple):
    """One firing: its request, a row of `firings`, and its messages by number. Instants are epoch seconds."""

    request: Request
    state: str
    accepted_at: float
    reason: str | None = None
    error: str | None = None
    attempts: int = 0
    tokens: int | None = None
    gate: str | None = None
    reply: str | None = None
    not_before: float | None = None
    started_at: float | None = None
    finished_at: float | None = None
    messages: tuple[Message, ...] = ()

    def __repr__(self) -> str:
        return f"<firing {self.id}: {self.state}>"

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    @property
    def text(self) -> str | None:
        """What is to be sent: a `text` as it is, else the reply once it is kept."""
        return self.reply if self.needs_attempt else self.request.body

    @property
    def replies(self) -> list[Message]:
        """The messages on which the outcome depends."""
        return [message for message in self.messages if message.decides]

    @property
    def next_message(self) -> Message | None:
        """The message to send next: of its replies; once it has ended, of what else is to be told. None if there is none.

        To each target in order; of several targets, the one whose turn comes first, so that none waits for another's retry.
        """
        first: dict[tuple[str, str], Message] = {}
        for one in self.messages:
            if one.state == WAITING and one.decides != self.is_final:
                first.setdefault((one.kind, one.to), one)
        return min(first.values(), key=lambda one: (one.not_before or 0.0, one.number), default=None)

    @property
    def reached(self) -> list[str]:
        """The targets whose whole reply was delivered."""
        states: dict[str, set[str]] = {}
        for reply in self.replies:
            states.setdefault(reply.to, set()).add(reply.state)
        return [to for to, found in states.items() if found == {DELIVERED}]

    @property
    def sends(self) -> int:
        return sum(message.sends for message in self.replies)

    @property
    def needs_attempt(self) -> bool:
        """Whether something runs before anything can be sent: a turn, or the gate of a `text`."""
        return self.request.kind != TEXT or self.request.gate is not None

    @property
    def awaits_gate(self) -> bool:
        """Whether its gate has not let it run yet."""
        return self.request.gate is not None and self.gate is None

    @property
    def has_side_effects(self) -> bool:
        """Whether the turn does its work while it runs, so that losing it in the middle leaves open what happened."""
        return (self.request.kind == COMMAND or self.request.reply_mode == "agent") and not self.awaits_gate

    @property
    def seconds(self) -> float | None:
        if self.started_at is None or self.finished_at is None:
            return None
        return round(max(0.0, self.finished_at - self.started_at), 3)

    def answer(self) -> dict[str, Any]:
        """Return what the socket says of this firing: id, status, and the fields that apply."""
        said: dict[str, Any] = {"id": self.id, "status": self.state}
        if self.is_final and self.reply is not None:
            said["reply"] = self.reply
        if self.error is not None:
            said["error"] = self.error
        if self.reason is not None:
            said["reason"] = self.reason
        if self.attempts:
            said["attempts"] = self.attempts
        if (next_try := self._next_try()) is not None:
            said["next_try"] = next_try
        if (seconds := self.seconds) is not None:
            said["seconds"] = seconds
        if len(self.messages) > 1:
            said["messages"] = [message.answer() for message in self.messages]
        return said

    def _next_try(self) -> str | None:
        if self.state != RETRYING:
            return None
        instants = [self.not_before, *(reply.not_before for reply in self.replies if reply.state == WAITING)]
        waits = [instant for instant in instants if instant is not None]
        return iso(min(waits)) if waits else None


FIRING_COLUMNS = Firing._fields[1:-1]
"""The columns of `firings` after those that its request gives: all of a `Firing` but its request and its messages."""
MESSAGE_COLUMNS = Message._fields


def message_of(row: sqlite3.Row) -> Message:
    """Return the message of a row of `messages`."""
    return Message._make(row[column] for column in MESSAGE_COLUMNS)


def firing_of(row: sqlite3.Row, messages: tuple[Message, ...]) -> Firing:
    """Return the firing of a row of `firings`; ValueError, KeyError or TypeError for one that no gateway wrote."""
    request = stored_request(row["id"], row["expires"], row["request"])
    return Firing._make((request, *(row[column] for column in FIRING_COLUMNS), messages))
