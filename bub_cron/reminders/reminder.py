"""What one entry of the file is: `Reminder`; and `Notice`, a doubt about one.

Invariants: a `Reminder` was checked in full, so a gateway takes its `content`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from bub_cron import wire
from bub_cron.schedule import Schedule


class Reminder(NamedTuple):  # a dataclass would import `inspect`, at a quarter of the cost of all
    """One entry of the file, with every default filled in.

    `schedule_text` is the schedule as written (`0 9 * * mon-fri`, `30m`, the dates of an `at` joined by ", ");
    `kind` is `prompt`, `text` or `command` and `body` the message; `grace` and `timeout` are seconds; `timezone` is
    where its times are read, "UTC" for an `every` without one; `file` is the path of the file that holds it, `line` and
    `column` are those of its name there, from 1, and `places` those of the values given for it, by key; `machine_zone`
    tells that its zone is the machine's, for want of another; `cut` is what YAML took for a comment behind the message;
    `pause_until` is the instant before which it doesn't run.
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
    file: str = ""
    machine_zone: bool = False
    places: Mapping[str, tuple[int, int]] = {}  # never changed
    cut: str = ""
    pause_until: int | None = None

    def content(self) -> dict[str, object]:
        """Return the fields of a request on the socket that make this reminder what it is: no id, no time."""
        fields: dict[str, object] = {"reminder": self.name, "to": self.to, self.kind: self.body}
        for key in ("attempts", "timeout", "overlap", "reply", "quiet"):
            fields[key] = getattr(self, key)
        if self.delivery != wire.DEFAULT_DELIVERY:
            fields["delivery"] = self.delivery
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
