"""What one entry of the file is: `Reminder`; and `Notice`, a doubt about one.

Invariants: a `Reminder` was checked in full, so a gateway takes its `content`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from bub_cron import wire
from bub_cron.schedule import Schedule


class Reminder(NamedTuple):  # a dataclass would import `inspect`, at a quarter of the cost of all
    """One entry of the file, with every default filled in.

    `schedule_text` is the schedule as written (`0 9 * * mon-fri`, `30m`, the dates of an `at` joined by ", ");
    `kind` is `prompt`, `text` or `command` and `body` the message; `grace` and `timeout` are seconds; `timezone` is
    where its times are read, "UTC" for an `every` without one; `file` is the path of the file that holds it, `line` and
    `column` are those of its name there, from 1, and `places` those of the values given for it, by key, of which `own` are
    in the entry itself, and the others in the file's `defaults`; `limits` are the schedule's limits (`start`, `until`, ...)
    as written; `machine_zone` tells that its zone is the machine's, for want of another; `cut` is what YAML took for a
    comment behind the message; `pause_until` is the instant before which it doesn't run.
    """

    name: str
    schedule: Schedule
    schedule_text: str
    kind: str
    body: str
    to: str
    session: str
    timezone: str
    grace: int
    attempts: int
    context: dict[str, str]
    line: int
    column: int
    enabled: bool = True
    catch_up: str = "latest"
    overlap: str = wire.DEFAULT_OVERLAP
    timeout: int = wire.DEFAULT_TIMEOUT
    reply: str = wire.DEFAULT_REPLY
    quiet: bool = False
    delivery: str = wire.DEFAULT_DELIVERY
    model: str | None = None
    also: list[str] = []  # noqa: RUF012 - never changed
    mark_late: float | str = wire.DEFAULT_MARK_LATE
    gate: dict[str, Any] | None = None
    tools: list[str] | None = None
    max_tokens: int | None = None
    budget: str | None = None
    alert: str | None = None
    ping: str | None = None
    file: str = ""
    machine_zone: bool = False
    places: Mapping[str, tuple[int, int]] = {}  # never changed
    own: frozenset[str] = frozenset()
    limits: Mapping[str, str] = {}  # never changed
    cut: str = ""
    pause_until: int | None = None

    def content(self) -> dict[str, object]:
        """Return the fields of a request on the socket that make this reminder what it is: no id, no time."""
        fields: dict[str, object] = {"reminder": self.name, "to": self.to, self.kind: self.body}
        for key in ("attempts", "timeout", "overlap", "reply", "quiet"):
            fields[key] = getattr(self, key)
        for key, default in wire.LEFT_OUT.items():
            if (value := getattr(self, key)) != default and not (key == "timezone" and self.machine_zone):
                fields[key] = value
        if self.session != self.to:
            fields["session"] = self.session
        if self.model is not None:
            fields["model"] = self.model
        if self.context:
            fields["context"] = dict(self.context)
        return fields


class Notice(NamedTuple):
    """Something legal but suspicious, at the value that it is about, or at the reminder's name."""

    line: int
    column: int
    message: str
    file: str = ""
