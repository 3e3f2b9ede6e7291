"""What goes over the socket: one JSON object a line, its fields, its statuses, and the one parser of requests.

Invariants:
- Both sides and `reminders.yaml` judge a field by the same checker (`FIELDS`), so what the file accepts the gateway
  accepts, with the same words when it doesn't.
- A request is taken whole or not at all: unknown keys, duplicate keys, wrong types, lone surrogates and NUL are refused.
- `Request.content` is the canonical form of what a firing does. Two requests with one id are the same request exactly
  when these are equal; `wait` and `expires` are about the asking, not part of it.

json (which loads re) is imported where it is used: a tick writes lines that the ledger keeps ready-made, and must not
pay for a parser before its line is on the socket.
"""

from __future__ import annotations

from functools import lru_cache

from bub_cron.checkers import (
    NAME_CHARACTERS,
    check_bool,
    check_timeout,
    check_to,
    is_name,
    line,
    one_of,
    string,
    wrong_type,
)
from bub_cron.states import ACCEPTED
from bub_cron.store import FAR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Any

    from bub_cron.errors import RequestError

PROTOCOL = 1
MAX_LINE = 64 * 1024  # bytes, the newline not counted

BUSY = "busy"
UNKNOWN_ID = "unknown-id"
PONG = "pong"
CHATS = "chats"

PROMPT, TEXT, COMMAND = "prompt", "text", "command"
MESSAGES = (PROMPT, TEXT, COMMAND)

DEFAULT_ATTEMPTS = 3
DEFAULT_COMMAND_ATTEMPTS = 1
DEFAULT_TIMEOUT = 600  # seconds
DEFAULT_LIFE = 3600  # seconds from now until a request without `expires` is too late to start
DEFAULT_OVERLAP = "skip"
DEFAULT_REPLY = "chat"
DEFAULT_DELIVERY = "at-most-once"

DEFAULT_MARK_LATE = 600  # seconds

NO_REPLY = "<no_reply/>"
FRESH = "fresh"
"""The session that is a new one for each firing."""

_ID_CHARACTERS = NAME_CHARACTERS | frozenset(":@+/~")
_RESERVED_CONTEXT = frozenset({"channel", "chat_id", "model"})


def firing_id(reminder: str, fire_time: str) -> str:
    """Return the id of a reminder's firing at a fire time (UTC, `2026-12-01T07:30:00Z`)."""
    return f"{reminder}@{fire_time}"


def iso(instant: float) -> str:
    """Write an instant (seconds since the epoch) as UTC, to the second: `2026-12-01T07:30:00Z`."""
    import time

    year, month, day, hour, minute, second = time.gmtime(instant)[:6]
    return f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}Z"


@lru_cache(maxsize=64)  # thousands of lines of one minute have few different ones
def parse_instant(text: str) -> float:
    """Read an ISO 8601 instant with an offset (`Z` or `+01:00`) as seconds since the epoch; ValueError otherwise."""
    from datetime import datetime

    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is not None:
            return moment.timestamp()
    except (OverflowError, ValueError) as error:
        raise ValueError(f"{text[:40]!r} is not an instant; write it like 2026-12-01T07:30:00Z") from error
    raise ValueError(f"{text!r} has no offset; end it with Z or one like +01:00")


# --- The checkers: each takes a value of any type, returns it normalised, or raises ValueError with a half sentence
# --- that reads on after "FIELD ".


def check_message(value: object) -> str:
    text = string(value, MAX_LINE)
    if not text.strip():
        raise ValueError("is empty")
    return text


def check_attempts(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type("a whole number", value)
    if not 1 <= value <= 100:
        raise ValueError("must lie between 1 and 100")
    return value


def check_context(value: object) -> dict[str, str]:
    if not isinstance(value, dict):
        raise wrong_type("a mapping of words to text", value)
    if len(value) > 32:
        raise ValueError("has more than 32 entries")
    return {_context_key(key): _context_value(key, entry) for key, entry in value.items()}


def _context_key(key: object) -> str:
    if not isinstance(key, str) or not is_name(key):
        raise ValueError("has a key that is not a plain word (letters, digits, -, _, .; at most 64)")
    if key.startswith("_"):
        raise ValueError(f"may not set {key}: keys that begin with _ are Bub's own")
    if key in _RESERVED_CONTEXT:
        where = "model" if key == "model" else "to"
        raise ValueError(f"may not set {key}: that is what `{where}` is for")
    return key


def _context_value(key: object, value: object) -> str:
    try:
        return line(value, 1024) if value != "" else ""
    except ValueError as error:
        raise ValueError(f"has a bad value: {key} {error}") from error


def _check_id(value: object) -> str:
    text = string(value, 200)
    if not _ID_CHARACTERS.issuperset(text):
        raise ValueError("may hold letters, digits and - _ . : @ + / ~ only")
    return text


def _check_reminder(value: object) -> str:
    if not isinstance(value, str) or not is_name(value):
        raise ValueError("must be a name: letters, digits, - _ . only, at most 64")
    if value[0] in "-.":
        raise ValueError("must begin with a letter, a digit or _")
    return value


def _check_expires(value: object) -> float:
    if isinstance(value, str):
        value = parse_instant(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type("an instant like 2026-12-01T07:30:00Z", value)
    # A text may lie outside, too: of the year 1, or of the last second but with a fraction or an offset. The inbox would
    # not take it, and what it doesn't take it holds for damage.
    if not 0 <= value <= FAR:
        raise ValueError("is out of range; write an instant from 1970 to 9999")
    return float(value)


def _rarely(checker: str) -> Callable[[object], Any]:
    """Return a checker of rare_fields.py, which is loaded once one is needed."""

    def check(value: object) -> Any:
        from bub_cron import rare_fields

        return getattr(rare_fields, checker)(value)

    return check


FIELDS: Mapping[str, Callable[[object], Any]] = {
    "to": check_to,
    PROMPT: check_message,
    TEXT: check_message,
    COMMAND: check_message,
    "also": _rarely("check_also"),
    "session": line,
    "attempts": check_attempts,
    "timeout": check_timeout,
    "overlap": one_of("skip", "queue"),
    "delivery": one_of("at-most-once", "at-least-once"),
    "mark_late": _rarely("check_mark_late"),
    "reply": one_of("chat", "agent"),
    "quiet": check_bool,
    "gate": _rarely("check_gate"),
    "tools": _rarely("check_tools"),
    "max_tokens": _rarely("check_tokens"),
    "budget": _rarely("check_budget"),
    "alert": _rarely("check_alert"),
    "ping": _rarely("check_address"),
    "model": line,
    "context": check_context,
}
"""The fields that a request and a reminder share, each with its checker."""

REQUEST_FIELDS: Mapping[str, Callable[[object], Any]] = {
    **FIELDS,
    "id": _check_id,
    "reminder": _check_reminder,
    "fire_time": line,
    "timezone": line,
    "expires": _check_expires,
    "wait": check_bool,
}


LEFT_OUT: Mapping[str, Any] = {
    "delivery": DEFAULT_DELIVERY, "also": [], "mark_late": DEFAULT_MARK_LATE, "gate": None, "tools": None,
    "max_tokens": None, "budget": None, "alert": None, "ping": None, "timezone": None,
}  # fmt: skip
"""The fields that `Request.content` leaves out at their defaults: an earlier version did not know them, and what it stored
is still the same request."""


class Request:
    """One request to run something now, with every default filled in. Durations are seconds, instants epoch seconds.

    `attempts_allowed` and `reply_mode` are the protocol's `attempts` and `reply`: a firing has attempts that it made, and a
    reply that it got.
    """

    # These stand in the class at their defaults (`LEFT_OUT`), and in the request where it has others.
    delivery: str
    also: list[str]
    mark_late: float | str
    gate: dict[str, Any] | None
    tools: list[str] | None
    max_tokens: int | None
    budget: str | None
    alert: str | None
    ping: str | None
    timezone: str | None

    def __init__(self, fields: Mapping[str, Any], *, new_id: Callable[[], str], now: float) -> None:
        self.kind: str = next(kind for kind in MESSAGES if kind in fields)
        self.id: str = fields["id"] if "id" in fields else new_id()
        self.body: str = fields[self.kind]
        self.to: str = fields["to"]
        # "temp/" is Bub's own prefix for sessions whose tape is not kept.
        session = fields.get("session", self.to)
        self.session: str = f"temp/{self.id}" if session == FRESH else session
        self.reminder: str | None = fields.get("reminder")
        self.fire_time: str | None = fields.get("fire_time")
        self.expires: float = fields.get("expires", now + DEFAULT_LIFE)
        default_attempts = DEFAULT_COMMAND_ATTEMPTS if self.kind == COMMAND else DEFAULT_ATTEMPTS
        self.attempts_allowed: int = fields.get("attempts", default_attempts)
        self.timeout: float = fields.get("timeout", DEFAULT_TIMEOUT)
        self.overlap: str = fields.get("overlap", DEFAULT_OVERLAP)
        self.reply_mode: str = fields.get("reply", DEFAULT_REPLY)
        self.quiet: bool = fields.get("quiet", False)
        self.model: str | None = fields.get("model")
        self.context: dict[str, str] = fields.get("context", {})
        self.wait: bool = fields.get("wait", True)
        # A tuple, since the garbage collector looks at one that holds nothing but strings only once, and thousands may wait.
        self._rare = tuple([field for field in fields if field in LEFT_OUT])
        for field in self._rare:
            setattr(self, field, fields[field])
        if self.to in self.also:
            self.also = [target for target in self.also if target != self.to]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Request) and self.id == other.id and self.content() == other.content()

    def __hash__(self) -> int:
        return hash(self.id)

    def content(self) -> str:
        """Return the canonical JSON of what this firing does; equal content means the same request."""
        fields: dict[str, Any] = {
            "attempts": self.attempts_allowed, "body": self.body, "context": self.context, "fire_time": self.fire_time,
            "kind": self.kind, "model": self.model, "overlap": self.overlap, "quiet": self.quiet,
            "reminder": self.reminder, "reply": self.reply_mode, "session": self.session,
            "timeout": float(self.timeout), "to": self.to,
        }  # fmt: skip
        for field in self._rare:
            if (value := getattr(self, field)) != LEFT_OUT[field]:
                fields[field] = value
        return _codecs()[2](fields)


for _field, _default in LEFT_OUT.items():
    setattr(Request, _field, _default)


def stored_request(request_id: str, expires: float, content: str) -> Request:
    """Return the request that `Request.content` wrote; ValueError, KeyError or TypeError for what no gateway wrote."""
    import json

    fields = json.loads(content)
    fields[fields.pop("kind")] = fields.pop("body")
    return Request({**fields, "id": request_id, "expires": expires}, new_id=str, now=0)


class StatusQuery:
    """`{"status": ID}`: where does this firing stand?"""

    __slots__ = ("id",)

    def __init__(self, id: str) -> None:  # noqa: A002 - the protocol's word
        self.id = id


class Ping:
    """`{"ping": true}`: who is there?"""

    __slots__ = ()


class ChatsQuery:
    """`{"chats": true}`: which chats has the gateway seen?"""

    __slots__ = ()


def parse_request(line: bytes, *, now: float, new_id: Callable[[], str]) -> Request | StatusQuery | Ping | ChatsQuery:
    """Read one line as a request; raise `RequestError`, with the request's id where it has one, if it is none.

    `now` (epoch seconds) is what a missing `expires` counts from; `new_id` makes an id for a request without one.
    """
    fields = _object(line)
    try:
        if fields.get("ping") is True or (len(fields) == 1 and "ping" in fields):
            return _only(fields, "ping", Ping() if fields["ping"] is True else None, '{"ping": true}')
        if "chats" in fields:
            return _only(fields, "chats", ChatsQuery() if fields["chats"] is True else None, '{"chats": true}')
        if "status" in fields:
            return _only(fields, "status", StatusQuery(_check_id(fields["status"])), '{"status": ID}')
        return Request(check_fields(fields, REQUEST_FIELDS), new_id=new_id, now=now)
    except ValueError as error:
        raise _refused(str(error), _known_id(fields)) from error


def _known_id(fields: Mapping[str, Any]) -> str | None:
    try:
        return _check_id(fields["id"])
    except (KeyError, ValueError):
        return None


def _only[Query](fields: Mapping[str, Any], key: str, query: Query | None, form: str) -> Query:
    if query is None or len(fields) != 1:
        raise ValueError(f"{key} goes alone, as {form}")
    return query


def check_fields(fields: Mapping[str, Any], checkers: Mapping[str, Callable[[object], Any]]) -> dict[str, Any]:
    """Return the fields checked and normalised; ValueError names the first that is wrong, missing or not known."""
    checked: dict[str, Any] = {}
    for key, value in fields.items():
        checker = checkers.get(key)
        if checker is None:
            raise ValueError(f"unknown field {key[:64]!r}{_nearest(key, checkers)}")
        try:
            checked[key] = checker(value)
        except ValueError as error:
            raise ValueError(f"{key} {error}") from error
    if "to" not in checked:
        raise ValueError("to is missing: channel:chat_id, such as telegram:123456789")
    if "budget" in checked and "reminder" in checkers and "reminder" not in checked:
        raise ValueError("budget goes with reminder, by which it is counted")
    given = [kind for kind in MESSAGES if kind in checked]
    if len(given) != 1:
        what = "more than one of" if given else "none of"
        raise ValueError(f"{what} prompt, text, command; give exactly one")
    return checked


def _nearest(key: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    matches = get_close_matches(key[:64], list(known), n=1)
    return f", did you mean {matches[0]!r}?" if matches else f"; known are {', '.join(known)}"


def _object(line: bytes) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise _refused(f"the line is over {MAX_LINE // 1024} KiB")
    try:
        value = _codecs()[0](line.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise _refused(_not_json(error)) from error
    if not isinstance(value, dict):
        raise _refused('the line is not a JSON object, such as {"to": "telegram:1", "text": "hello"}')
    return value


def _not_json(error: ValueError | RecursionError) -> str:
    import json

    if isinstance(error, UnicodeDecodeError):
        return "the line is not UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"the line is not JSON: {error.msg} at column {error.colno}"
    return "the line is nested too deeply" if isinstance(error, RecursionError) else str(error)


def _refused(why: str, firing_id: str | None = None) -> RequestError:
    from bub_cron.errors import RequestError

    return RequestError(why, firing_id)


def _pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(items)
    if len(found) < len(items):
        once: set[str] = set()
        for key, _ in items:
            if key in once:
                raise ValueError(f"the key {key[:64]!r} stands there twice")
            once.add(key)
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def encode(message: Mapping[str, Any]) -> bytes:
    """Return one line of the protocol: a JSON object and its newline, UTF-8."""
    return _codecs()[1](message).encode() + b"\n"


def accepted(firing_id: str) -> bytes:
    """Return the line that answers a request which was taken in; an id needs no quoting."""
    return f'{{"id": "{firing_id}", "status": "{ACCEPTED}"}}\n'.encode()


_made: tuple[Callable[[str], Any], Callable[[object], str], Callable[[object], str]] | None = None


def _codecs() -> tuple[Callable[[str], Any], Callable[[object], str], Callable[[object], str]]:
    """Return what reads a line strictly, what writes one, and what writes the canonical form; made once, when needed."""
    global _made
    if _made is None:
        import json

        _made = (
            json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_no_constant).decode,
            json.JSONEncoder(ensure_ascii=False).encode,
            json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode,
        )
    return _made
