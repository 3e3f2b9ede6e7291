"""What must hold of the three parsers, whatever the bytes: one function for each, which returns or raises AssertionError.

Used by the fuzzer (run.py, millions of inputs) and by tests/test_fuzz.py (the corpus, at each run).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice, pairwise

from bub_cron import checkers, wire
from bub_cron.errors import FileFaultsError, RequestError, ScheduleError
from bub_cron.reminders import parse
from bub_cron.schedule import (
    Schedule,
    decode,
    describe,
    encode,
    fire_times,
    next_fire_time,
    parse_at,
    parse_cron,
    parse_every,
)

NOW = 1_800_000_000
_LONGEST_ERROR = 2_000  # characters; it goes into an answer and a log line
_FAR = 253402300799
_OWN = {"channel", "chat_id", "model"}


def requests(data: bytes) -> None:
    """A line is a request that the inbox can hold and the framework can trust, or a `RequestError` of one line."""
    try:
        request = wire.parse_request(data, now=NOW, new_id=lambda: "poke-1")
    except RequestError as error:
        _is_a_plain_line(str(error), _LONGEST_ERROR)
        assert error.id is None or error.id.isascii()
        wire.encode({"id": error.id, "error": str(error)})
        return
    assert len(data) <= wire.MAX_LINE
    if not isinstance(request, wire.Request):
        return
    assert 0 <= request.expires <= _FAR
    assert 0 < request.timeout <= checkers.MAX_DURATION
    assert 1 <= request.attempts_allowed <= 100
    assert request.body.strip()
    for key, value in request.context.items():
        assert not key.startswith("_")
        assert key not in _OWN
        assert value.isprintable()
    for word in (request.to, request.session, request.model or "-", request.fire_time or "-", request.id):
        assert word.isprintable()
    request.content().encode()
    again = {key: value for key, value in vars_of(request).items() if value is not None}
    repeated = wire.parse_request(wire.encode(again), now=NOW, new_id=lambda: "poke-2")
    assert isinstance(repeated, wire.Request)
    assert repeated.content() == request.content()


def vars_of(request: wire.Request) -> dict[str, object]:
    """Return a request's fields as they go over the socket."""
    names = {"attempts": "attempts_allowed", "reply": "reply_mode"}
    fields = {key: getattr(request, names.get(key, key)) for key in wire.REQUEST_FIELDS if key not in wire.MESSAGES}
    return {**fields, request.kind: request.body}


def reminders(data: bytes) -> None:
    """A file is reminders that the socket takes and the ledger can hold, or faults of one plain line each."""
    try:
        found = parse(data, "reminders.yaml", machine_zone=lambda: "Europe/Berlin")
    except FileFaultsError as error:
        assert error.faults
        for fault in error.faults:
            assert fault.line >= 1
            assert fault.column >= 1
            _is_a_plain_line(fault.message, _LONGEST_ERROR)
        return
    for reminder in found:
        _schedule_is_sound(reminder.schedule)
        line = wire.encode({**reminder.content(), "id": f"{reminder.name}@2026-12-01T07:30:00Z"})
        request = wire.parse_request(line, now=NOW, new_id=lambda: "poke-1")
        assert isinstance(request, wire.Request)
        assert request.reminder == reminder.name


def schedules(data: bytes) -> None:
    """A text is a schedule that survives the store and goes forward, or a `ScheduleError` of one plain line.

    The first byte chooses the kind, the rest is the zone, a newline, and the text.
    """
    kind, text = data[:1], data[1:].decode("utf-8", "replace")
    zone, _, text = text.partition("\n")
    read: dict[bytes, Callable[[], Schedule]] = {
        b"c": lambda: parse_cron(text, zone, "name"),
        b"a": lambda: parse_at(text.split("\n"), zone),
        b"e": lambda: parse_every(checkers.parse_duration(text)),
        b"d": lambda: decode(text),
    }
    try:
        schedule = read.get(kind, read[b"c"])()
    except ScheduleError as error:
        _is_a_plain_line(str(error), _LONGEST_ERROR)
    except ValueError as error:
        assert kind == b"e"
        _is_a_plain_line(str(error), _LONGEST_ERROR)
    else:
        _schedule_is_sound(schedule)


def _schedule_is_sound(schedule: Schedule) -> None:
    assert decode(encode(schedule)) == schedule
    _is_a_plain_line(describe(schedule), 20_000)
    following = next_fire_time(schedule, NOW)
    if following is None:
        return
    assert following > NOW
    times = list(islice(fire_times(schedule, NOW, following + 86400), 10))
    assert times[0] == following
    assert all(earlier < later for earlier, later in pairwise(times))


def _is_a_plain_line(text: str, longest: int) -> None:
    assert text
    assert text.isprintable(), ascii(text)
    assert len(text) <= longest, len(text)


TARGETS: dict[str, Callable[[bytes], None]] = {"requests": requests, "reminders": reminders, "schedules": schedules}
