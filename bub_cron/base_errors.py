"""The base of all errors, those of the stores, and the exit statuses: what a tick that has nothing to do pays for.

Each class costs it a three-hundredth of a bare interpreter, so the others are in errors.py, which has these as well.

Imports nothing.
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


class StoreError(BubCronError):
    """A store that can't be opened, read or written: damaged, of a newer version, on a full or read-only disk."""

    exit_status = EX_IOERR


class DamagedStoreError(StoreError):
    """A store that SQLite can't read any more as what it was; `salvage.mend` puts it aside."""


class StoreFaultError(StoreError):
    """A statement of ours that SQLite refuses on a store that is whole: a fault of bub-cron. Trying again won't help."""


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
