"""One firing as the gateway knows it: a row of the inbox, and where it stands.

Kept true here: what the socket says of a firing is made in one place; the text of a message is in no `repr`, so in no log.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from bub_cron.states import FINAL
from bub_cron.wire import COMMAND, TEXT

COLUMNS = (
    "id, reminder, fire_time, target, session, kind, content, expires, state, attempts, sends, sending, reply, error,"
    " not_before, accepted_at, started_at, finished_at"
)
WITHOUT_REPLY = COLUMNS.replace(" reply,", " NULL,")
# The errors of attempts whose end nobody saw.
LOST_IN_CRASH = "the gateway ended in the middle of the turn"
LOST_IN_STOP = "the gateway stopped in the middle of the turn"
# The content of a firing whose own was damaged.
NOTHING = json.dumps({
    "body": "",
    "attempts": 1,
    "timeout": 1.0,
    "reply": "chat",
    "quiet": False,
    "model": None,
    "context": {},
})
OPEN = "('accepted', 'running', 'retrying')"


@dataclass(frozen=True, slots=True)
class Firing:
    """One row: a firing and where it stands. Instants are epoch seconds, durations seconds."""

    id: str
    reminder: str | None
    fire_time: str | None
    to: str
    session: str
    kind: str
    body: str = field(repr=False)  # texts of messages are for no log
    expires: float
    attempts_allowed: int
    timeout: float
    reply_mode: str
    quiet: bool
    model: str | None
    context: dict[str, str] = field(repr=False)
    state: str
    attempts: int
    sends: int
    sending: bool
    reply: str | None = field(repr=False)
    error: str | None
    not_before: float | None
    accepted_at: float
    started_at: float | None
    finished_at: float | None

    @property
    def is_final(self) -> bool:
        return self.state in FINAL

    @property
    def acts_by_itself(self) -> bool:
        """Whether the turn does its work while it runs, so that losing it in the middle leaves open what happened."""
        return self.kind == COMMAND or self.reply_mode == "agent"

    @property
    def may_have_acted(self) -> bool:
        """Whether the last attempt acts by itself and was lost in the middle."""
        return self.acts_by_itself and self.error in (LOST_IN_CRASH, LOST_IN_STOP)

    @property
    def seconds(self) -> float | None:
        if self.started_at is None or self.finished_at is None:
            return None
        return round(max(0.0, self.finished_at - self.started_at), 3)

    def answer(self) -> dict[str, Any]:
        """Return what the socket says of this firing: id, status, and the fields that apply."""
        answer: dict[str, Any] = {"id": self.id, "status": self.state}
        if self.is_final:
            if self.kind != TEXT and self.reply is not None:
                answer["reply"] = self.reply
            if self.error is not None:
                answer["error"] = self.error
            if self.seconds is not None:
                answer["seconds"] = self.seconds
        if self.attempts:
            answer["attempts"] = self.attempts
        return answer


def firing_of(row: tuple[Any, ...]) -> Firing:
    """Return the firing of a row with `COLUMNS`; ValueError, KeyError or TypeError for one that no gateway wrote."""
    (id_, reminder, fire_time, target, session, kind, content, expires, state, attempts, sends, sending, reply, error,
     not_before, accepted_at, started_at, finished_at) = row  # fmt: skip
    does = json.loads(content)
    return Firing(
        id=id_, reminder=reminder, fire_time=fire_time, to=target, session=session, kind=kind, body=does["body"],
        expires=expires, attempts_allowed=does["attempts"], timeout=does["timeout"], reply_mode=does["reply"],
        quiet=does["quiet"], model=does["model"], context=does["context"], state=state, attempts=attempts, sends=sends,
        sending=bool(sending), reply=reply, error=error, not_before=not_before, accepted_at=accepted_at,
        started_at=started_at, finished_at=finished_at,
    )  # fmt: skip
