"""Where everything stands: the reminders file, the directory of the stores, the socket.

Invariants: both sides find the same places from the same four variables, and a flag overrides its variable. Nothing
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

    An empty variable or flag counts as not given; `~` is the user's home; relative paths start at the working directory,
    and are a `UnusablePathError` where that has been removed.
    """
    home = _absolute(environ.get("BUB_HOME") or "~/.bub")
    own = os.path.join(home, "cron")
    return Paths(
        home=home,
        file=_absolute(file or environ.get("BUB_CRON_FILE") or os.path.join(home, "reminders.yaml")),
        state=_absolute(state or environ.get("BUB_CRON_STATE") or own),
        socket=_absolute(socket or environ.get("BUB_CRON_SOCKET") or os.path.join(own, "cron.sock")),
    )


def drop_in_directory(file: str) -> str:
    """Return the directory of a reminders file's drop-ins: the one beside it that has its name with `.d` for its suffix."""
    return f"{os.path.splitext(file)[0]}.d"


def drop_ins(file: str) -> list[str]:
    """Return the paths of a reminders file's drop-ins, in the order of their names; OSError if they can't be listed."""
    directory = drop_in_directory(file)
    if directory == file:
        return []
    try:
        names = os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: NUL in the path
        if os.path.lexists(directory):
            raise
        return []
    return [os.path.join(directory, name) for name in sorted(names) if name.endswith(".yaml") and name[0] != "."]


def chat_file(file: str) -> str:
    """Return the path of the drop-in that holds the reminders made in chat, the one file that the program itself writes."""
    return os.path.join(drop_in_directory(file), "chat.yaml")


def _absolute(path: str) -> str:
    try:
        return os.path.abspath(os.path.expanduser(path))
    except FileNotFoundError as error:
        from bub_cron.errors import UnusablePathError

        raise UnusablePathError(
            f"{path} starts at the working directory, which has been removed: go to another one, or write the whole path"
        ) from error


def make_private_directory(path: str) -> None:
    """Create a directory of mode 0700, with its parents, unless it is there already; OSError passes through.

    One in which others than this user and root could put, replace or remove something is refused, with PermissionError.
    """
    _make(path, 0o700)
    if unsafe := why_unsafe(path):
        raise PermissionError(1, unsafe)


def _make(path: str, mode: int) -> None:
    if os.path.isdir(path):
        return
    _make(os.path.dirname(path), 0o755)  # not what os.makedirs gives them: with a umask of 0 that lets all others write
    try:
        os.mkdir(path, mode)
        os.chmod(path, os.stat(path).st_mode & 0o777 | 0o700)  # whatever the umask took from its owner
    except FileExistsError:  # another process was quicker
        if not os.path.isdir(path):
            raise


def create_file(path: str, text: str) -> None:
    """Create a file that its owner alone may write, whatever the umask, with the directories above it; OSError passes through.

    A file that is there is a FileExistsError.
    """
    _make(os.path.dirname(path), 0o755)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    with open(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(descriptor, os.fstat(descriptor).st_mode & 0o777 | 0o600)
        file.write(text)


# The bits of st_mode, without the module `stat`.
_KIND, _LINK, _STICKY, _GROUP_WRITES, _OTHERS_WRITE = 0o170000, 0o120000, 0o1000, 0o020, 0o002
_MOST_LINKS = 40


def why_unsafe(directory: str) -> str | None:
    """Return who else could put, replace or remove something in a directory, as a sentence; None if nobody could.

    Each part of the path, and of the links that it leads through, must belong to root or this user, and nobody else may
    write there. Above the directory itself a sticky one, as /tmp is, will do: what is ours there nobody can take away.
    Root also trusts whom root, or one it trusts, gave a place where nobody else writes, as /home/bub. What stands in
    BUB_CRON_TRUST_DIRS (paths, with colons between) is not judged: a pod's volume, say, which is open to all of the pod.
    """
    vouched = (os.environ.get("BUB_CRON_TRUST_DIRS") or "").split(":")
    trusted = {0, os.geteuid()}
    parts, here, links, given = _parts(directory), "/", 0, True
    while parts:
        part = parts.pop(0)
        place = os.path.join(here, part)
        found = os.lstat(place)
        if place in vouched and found.st_mode & _KIND != _LINK:
            here, given = place, True
            continue
        if found.st_uid not in trusted:
            if os.geteuid() != 0 or not given:
                from bub_cron.errors import user_name

                return f"{place} belongs to {user_name(found.st_uid)}, who could replace what is in it"
            trusted.add(found.st_uid)
        if found.st_mode & _KIND == _LINK:
            links += 1
            if links > _MOST_LINKS:
                return f"{directory} leads through too many symbolic links"
            target = os.readlink(place)
            here, given = ("/", True) if target.startswith("/") else (here, given)
            parts[:0] = _parts(target)
            continue
        given = not others_write(found, place)
        if not given and (not parts or not found.st_mode & _STICKY):
            mode = found.st_mode & 0o7777
            return f"others may write in {place} (mode {mode:04o}); run: chmod go-w {place}"
        here = place
    return None


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in {"", "."}]


def others_write(found: os.stat_result, where: str | int) -> bool:
    """Tell whether others than its owner and root may write to what was found at a path or a descriptor.

    The group counts as others unless it is root's, or the owner's or our own private one: of the user's name, with nobody
    else in it. Where that is the custom, files are made writable by the group, and that means nothing.
    """
    if found.st_mode & _OTHERS_WRITE:
        return True
    if not found.st_mode & _GROUP_WRITES:
        return False
    try:
        os.getxattr(where, "system.posix_acl_access")
    except OSError:
        pass  # no access list, or no such thing here
    else:
        return True  # then the group's bits are the most that any of the list may do
    if found.st_gid == 0:
        return False
    import grp
    import pwd

    try:
        group = grp.getgrgid(found.st_gid)
    except KeyError:
        return found.st_gid != os.getegid()  # it has no name and so no members: in a container, our own
    for uid in (found.st_uid, os.geteuid()):
        try:
            user = pwd.getpwuid(uid)
        except KeyError:
            continue
        if user.pw_gid == found.st_gid and user.pw_name == group.gr_name and not set(group.gr_mem) - {user.pw_name}:
            return False
    return True


def text_of(path: str) -> str:
    """Return a path, or what holds one, as text that a store takes; a path need not be UTF-8."""
    return path.encode("utf-8", "backslashreplace").decode()
