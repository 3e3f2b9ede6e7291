"""What a tick has to say: its troubles, printed and told to systemd. Loaded only where there is something to say."""

import os

from bub_cron import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sqlite3 import Row
    from typing import TextIO


class Trouble:
    """One thing that is wrong: `key` tells it from others, tick after tick; `text` is what the user reads."""

    __slots__ = ("key", "status", "text")

    def __init__(self, status: int, text: str, key: str | None = None) -> None:
        self.status = status
        self.text = text
        self.key = key or text


def file_troubles(faulty: "list[Row]") -> list[Trouble]:
    """Return the troubles of faulty files, as `Ledger.faulty_files` has them."""
    note = f"\n{errors.STAYS_IN_FORCE}"
    return [Trouble(row["status"], row["faults"] + (note if row["older"] else "")) for row in faulty]


# Of several troubles, the tick exits with the first of these.
_URGENCY = (errors.EX_IOERR, errors.EX_PROTOCOL, errors.EX_UNAVAILABLE, errors.EX_DATAERR, errors.EX_NOINPUT)


def exit_status(troubles: list[Trouble]) -> int:
    """Return the status of the most urgent trouble."""
    statuses = {trouble.status for trouble in troubles}
    return next((status for status in _URGENCY if status in statuses), 0)


def say(out: "TextIO", text: str) -> None:
    """Print a text, each line with the program's name."""
    try:
        for line in text.splitlines():
            print(f"bub-cron: {_plain(line)}", file=out)
    except OSError:  # nobody reads it any more: the tick goes on, and its exit status says that there was something
        return


def _plain(line: str) -> str:
    # What the gateway or the file says may hold what a terminal would obey.
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in line)


def tell_systemd(text: str) -> None:
    """Leave a trouble for `systemctl status`, where systemd runs the tick: it shows what this run said, not the last."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    import contextlib
    import socket

    if address.startswith("@"):
        address = f"\0{address[1:]}"
    status = "; ".join(map(_plain, text.splitlines()))[:1000]
    # Without it the tick has failed no less, and its exit status says so.
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notice:
        notice.connect(address)
        notice.send(f"STATUS={status}".encode("utf-8", "replace"))
