"""The words that both the file and the socket are made of (durations, names, targets), and the checkers that others build on.

Invariants: a checker takes a value of any type, returns it normalised, or raises ValueError with a half sentence that reads
on after "FIELD ". What one returns it also takes, and returns as it is.

Imports nothing: every tick loads it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

NONE, NEVER = "none", "never"
NAME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_UNITS = (("w", 604800), ("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
MAX_DURATION = 366 * 86400  # seconds


def parse_duration(text: str) -> int:
    """Return the seconds of a duration such as `90s`, `15m`, `2h`, `1d`, `2w` or `1h30m`; ValueError says what is wrong."""
    wrong = f"{text[:40]!r} is not a duration; write it like 90s, 15m, 2h, 1d or 1h30m"
    units = dict(_UNITS)
    order = [unit for unit, _ in _UNITS]
    total, digits, seen = 0, "", -1
    for character in text:
        if character in "0123456789":
            digits += character
        elif character in units and 0 < len(digits) <= 9 and order.index(character) > seen:
            total += int(digits) * units[character]
            digits, seen = "", order.index(character)
        else:
            raise ValueError(wrong)
    if digits or seen < 0:
        raise ValueError(wrong)
    if not 0 < total <= MAX_DURATION:
        raise ValueError(f"{text!r} is out of range; a duration lies between 1s and 366d")
    return total


def duration(seconds: int) -> str:
    """Return seconds as `parse_duration` reads them: `1h30m`. Weeks are written as days."""
    parts = []
    for unit, size in _UNITS[1:]:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def split_to(to: str) -> tuple[str, str]:
    """Return (channel, chat id) of a target; everything after the first colon is the chat id."""
    channel, _, chat_id = to.partition(":")
    return channel, chat_id


def is_name(text: str) -> bool:
    """Tell whether `text` can name a reminder: letters, digits, `-`, `_`, `.`; 1 to 64 of them."""
    return 0 < len(text) <= 64 and NAME_CHARACTERS.issuperset(text)


def _kind(value: object) -> str:
    names = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def wrong_type(right: str, value: object) -> ValueError:
    return ValueError(f"must be {right}, not {_kind(value)}")


def string(value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise wrong_type("text", value)
    if not value:
        raise ValueError("is empty")
    if len(value) > limit:
        raise ValueError(f"is longer than {limit:,} characters")
    if value.isprintable():  # then it holds neither of these
        return value
    if "\0" in value:
        raise ValueError("holds a NUL character")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a surrogate pair, which is no character") from error
    return value


def line(value: object, limit: int = 512) -> str:
    text = string(value, limit)
    if not text.isprintable():
        raise ValueError("holds a control or other unprintable character")
    if text != text.strip():
        raise ValueError("begins or ends with a space")
    return text


def check_to(value: object) -> str:
    text = line(value)
    channel, chat_id = split_to(text)
    if not chat_id or chat_id != chat_id.strip() or not is_name(channel):
        raise ValueError("must be channel:chat_id, such as telegram:123456789")
    return text


def check_timeout(value: object) -> float:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type("seconds or a duration like 10m", value)
    if not 0 < value <= MAX_DURATION:
        raise ValueError("must lie between 0 and 366 days, in seconds")
    return value


def check_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise wrong_type("true or false", value)
    return value


def one_of(*choices: str) -> Callable[[object], str]:
    """Make a checker that takes only the given words."""

    def check(value: object) -> str:
        if value not in choices or not isinstance(value, str):
            raise ValueError(f"must be {' or '.join(choices)}")
        return value

    return check


def span(seconds: float) -> str:
    """Return a length of time with its two largest units: `2 d 3 h`, `4 min 10 s`, `4.1 s`, `0.03 s`."""
    if seconds < 1:
        return f"{seconds:.2f} s"
    if seconds < 10:
        return f"{seconds:.1f} s"
    left, parts = int(seconds), []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count} {unit}")
    return " ".join(parts[:2])
