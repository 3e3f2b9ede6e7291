"""Where everything stands: the reminders file, the directory of the stores, the socket.

Kept true here: both sides find the same places from the same four variables, and a flag overrides its variable. Nothing
is read from `config.yml` or `.env`, because a cron job sees neither. Only strings and `os` are used: a tick with nothing
to do pays for every module it loads.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLES = ("BUB_HOME", "BUB_CRON_FILE", "BUB_CRON_STATE", "BUB_CRON_SOCKET")


class Paths:
    """The places in force, as absolute paths."""

    __slots__ = ("file", "home", "socket", "state")

    def __init__(self, home: str, file: str, state: str, socket: str) -> None:
        self.home = home
        self.file = file
        self.state = state
        self.socket = socket

    @property
    def ledger(self) -> str:
        """The trigger side's store."""
        return os.path.join(self.state, "ledger.db")

    @property
    def inbox(self) -> str:
        """The gateway side's store."""
        return os.path.join(self.state, "inbox.db")


def find_paths(
    environ: "Mapping[str, str]" = os.environ,
    *,
    file: str | None = None,
    state: str | None = None,
    socket: str | None = None,
) -> Paths:
    """Find the places: a flag (`file`, `state`, `socket`) wins over its variable, that over the default below BUB_HOME.

    An empty variable or flag counts as not given; `~` is the user's home; relative paths start at the working directory.
    """
    home = _absolute(environ.get("BUB_HOME") or "~/.bub")
    own = os.path.join(home, "cron")
    return Paths(
        home=home,
        file=_absolute(file or environ.get("BUB_CRON_FILE") or os.path.join(home, "reminders.yaml")),
        state=_absolute(state or environ.get("BUB_CRON_STATE") or own),
        socket=_absolute(socket or environ.get("BUB_CRON_SOCKET") or os.path.join(own, "cron.sock")),
    )


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))


def make_private_directory(path: str) -> None:
    """Create a directory of mode 0700, with its parents, unless it is there already; OSError passes through."""
    if os.path.isdir(path):
        return
    os.makedirs(os.path.dirname(path), exist_ok=True)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:  # another process was quicker
        if not os.path.isdir(path):
            raise
