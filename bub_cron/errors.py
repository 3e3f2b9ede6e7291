"""Every error that a caller can do something about, each with its exit status.

Invariants: whatever goes wrong reaches the user as a `BubCronError`, which is turned into one line of text and an
exit status in one place for the commands (`cli`) and in one for the tick (`trigger.tick.run`). Exit statuses are those
of sysexits.h where one fits.

Imports nothing: a tick that has nothing to do pays for every module it loads.
"""

EX_DATAERR = 65
EX_NOINPUT = 66
EX_UNAVAILABLE = 69
EX_CANTCREAT = 73
EX_IOERR = 74
EX_PROTOCOL = 76
EX_NOPERM = 77


class BubCronError(Exception):
    """Base of all errors of this project. `str()` of it is the sentence that the user reads."""

    exit_status = 1


class ScheduleError(BubCronError):
    """A schedule that can't be read or never fires. The text says which part, and what would be right."""

    exit_status = EX_DATAERR


class UnknownReminderError(BubCronError):
    """A reminder's name that the files don't hold."""


class Fault:
    """One thing that is wrong in a file: `line` and `column` count from 1; `message` says what, and what would be right."""

    __slots__ = ("column", "line", "message")

    def __init__(self, line: int, column: int, message: str) -> None:
        self.line = line
        self.column = column
        self.message = message

    def __repr__(self) -> str:
        return f"Fault({self.line}, {self.column}, {self.message!r})"


STAYS_IN_FORCE = "until that is fixed, the last good version stays in force"
"""Said beside the faults of a file whose earlier version the tick goes by."""


class FileFaultsError(BubCronError):
    """A reminders file that is broken: `path`, and all its `faults`, sorted by line and column.

    `source` is the file's text as far as it could be decoded, for showing the lines; "" when it could not.
    """

    exit_status = EX_DATAERR

    def __init__(self, path: str, faults: list[Fault], source: str = "") -> None:
        self.path = path
        self.faults = sorted(faults, key=lambda fault: (fault.line, fault.column))
        self.source = source
        super().__init__(path, self.faults)

    def __str__(self) -> str:
        return "\n".join(f"{self.path}:{fault.line}:{fault.column}: {fault.message}" for fault in self.faults)


class FileUnreadableError(BubCronError):
    """A reminders file that exists but can't be read (permissions, a directory, an I/O error); `path` names it."""

    exit_status = EX_DATAERR

    def __init__(self, message: str, path: str) -> None:
        super().__init__(message)
        self.path = path


class FileMissingError(BubCronError):
    """There is no reminders file at the path in force."""

    exit_status = EX_NOINPUT


class FaultyFilesError(BubCronError):
    """Several reminders files that can't be used: `errors` has a `FileFaultsError` or `FileUnreadableError` for each."""

    exit_status = EX_DATAERR

    def __init__(self, errors: list[BubCronError]) -> None:
        self.errors = errors
        super().__init__(errors)

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))


def each_of(error: BubCronError) -> list[BubCronError]:
    """Return the errors that an error stands for: those of a `FaultyFilesError`, or itself alone."""
    return error.errors if isinstance(error, FaultyFilesError) else [error]


class FileExistsAlreadyError(BubCronError):
    """`init` found a file where it would have written one; nothing was touched."""

    exit_status = EX_CANTCREAT


class ChatFileError(BubCronError):
    """The file of the reminders made in chat can't be written; it stands as it did."""

    exit_status = EX_CANTCREAT


class StoreError(BubCronError):
    """A store that can't be opened, read or written: damaged, of a newer version, on a full or read-only disk."""

    exit_status = EX_IOERR


class DamagedStoreError(StoreError):
    """A store that SQLite can't read any more as what it was; `salvage.mend` puts it aside."""


class StoreFaultError(StoreError):
    """A statement of ours that SQLite refuses on a store that is whole: a fault of bub-cron. Trying again won't help."""


class GatewayAbsentError(BubCronError):
    """Nobody answers on the socket, or it stopped answering before everything asked was answered."""

    exit_status = EX_UNAVAILABLE


class GatewayLeftError(BubCronError):
    """The gateway accepted something and went away before the final outcome; it has it on disk."""


class UnusablePathError(BubCronError):
    """A path that a unit or a crontab can't hold, or that what runs there couldn't use."""

    exit_status = EX_DATAERR


class NoSuchManagerError(BubCronError):
    """Neither systemd nor cron is there as `install` would need it; the text says what to choose instead."""

    exit_status = EX_UNAVAILABLE


class MissingExtraError(BubCronError):
    """An optional dependency that a command needs and that isn't installed; the text says how to install it.

    By sysexits.h, 69 is also for a support program that can't be found.
    """

    exit_status = EX_UNAVAILABLE


class NotAllowedError(BubCronError):
    """Something that only another user, mostly root, may do."""

    exit_status = EX_NOPERM


class HandChangedError(BubCronError):
    """`install` or `uninstall` kept what someone had changed by hand; all else was done."""

    exit_status = EX_CANTCREAT


class OtherHomeError(BubCronError):
    """What `install` would write over runs the tick for another home; nothing was touched."""

    exit_status = EX_CANTCREAT


class HalfDoneError(BubCronError):
    """A command that `install` or `uninstall` ran, or a write, failed; the text says which, why, and what stands now."""

    exit_status = EX_IOERR


class RequestError(BubCronError):
    """Bytes on the socket that are not a request; the text goes back to the caller as the answer's `error`.

    `id` is the request's own id where it could be read, so that the caller knows which of its lines was meant.
    """

    exit_status = EX_PROTOCOL

    def __init__(self, message: str, id: str | None = None) -> None:  # noqa: A002 - the protocol's own word
        super().__init__(message)
        self.id = id


def whole_characters(text: str) -> str:
    """Return text with halves of surrogate pairs, which neither a store nor a socket can hold, replaced by `?`."""
    return text.encode("utf-8", "replace").decode()


def one_line(text: str, most: int = 300) -> str:
    """Return a text as one line of at most `most` printable characters.

    What a terminal would obey, or what changes the order in which it shows the rest, is written as an escape.
    """
    words = whole_characters(" ".join(text[: 4 * most].split())[:most])
    if not words.isprintable():
        words = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
    return words[:most]


def described(error: BaseException, most: int = 300) -> str:
    """Return an exception as one printable line of about `most` characters: its type, and its text where it has one."""
    try:
        text = one_line(str(error), most)
    except Exception:
        text = ""  # it comes from anybody's code, and so does what makes its text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def user_name(uid: int) -> str:
    """Return a user's name as `user bub`, or the number of one that has none here."""
    import pwd

    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:  # a container's, say
        return f"user {uid}"
