"""wire.py: what a line may be, field by field, and when two requests are the same one."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bub_cron import checkers, wire
from bub_cron.errors import EX_PROTOCOL, RequestError
from bub_cron.wire import MAX_LINE, ChatsQuery, Ping, Request, StatusQuery, parse_request

GOOD: dict[str, Any] = {"to": "telegram:1", "text": "hello"}
NOW = 1_000_000.0


def line(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


def parse(raw: bytes) -> Request:
    request = parse_request(raw, now=NOW, new_id=lambda: "poke-1")
    assert isinstance(request, Request)
    return request


def fault(raw: bytes) -> str:
    with pytest.raises(RequestError) as caught:
        parse_request(raw, now=NOW, new_id=lambda: "poke-1")
    return str(caught.value)


# --- Lines


def test_a_line_is_one_object_and_its_newline_in_utf_8() -> None:
    assert wire.encode({"text": "Grüße\n"}) == '{"text": "Grüße\\n"}\n'.encode()


def test_the_smallest_request_has_every_default() -> None:
    request = parse(b'{"to": "telegram:1", "text": "hello"}')
    found = {name: getattr(request, name) for name in {*vars(request), *wire.LEFT_OUT} - {"_rare"}}
    assert found == {
        "attempts_allowed": 3, "body": "hello", "context": {}, "delivery": "at-most-once", "expires": NOW + 3600, "fire_time": None, "id": "poke-1",
        "kind": "text", "model": None, "overlap": "skip", "quiet": False, "reminder": None, "reply_mode": "chat",
        "session": "telegram:1", "timeout": 600, "to": "telegram:1", "wait": True, "also": [], "mark_late": 600,
        "gate": None, "tools": None, "max_tokens": None, "budget": None, "alert": None, "ping": None, "timezone": None,
    }  # fmt: skip


def test_every_field_arrives_normalised() -> None:
    given = {
        "id": "a@b", "to": "x:y:z", "prompt": "p", "reminder": "r", "fire_time": "noon", "expires": "1970-01-01T01:00:00+01:00",
        "session": "s", "attempts": 1, "timeout": "1m30s", "overlap": "queue", "reply": "agent", "quiet": True,
        "model": "openai:x", "context": {"thread_id": ""}, "wait": False, "delivery": "at-least-once",
        "also": ["x:1", "x:y:z", "x:1"], "mark_late": "1h", "gate": {"run": "true", "changed": True}, "tools": ["b.c", "b.c"],
        "max_tokens": "60k", "budget": "2m/week", "alert": "none", "ping": "https://a.b/c?d", "timezone": "Europe/Berlin",
    }  # fmt: skip
    request = parse(json.dumps(given).encode())
    found = {name: getattr(request, name) for name in {*vars(request), *wire.LEFT_OUT} - {"_rare"}}
    expected = {
        **given,
        "expires": 0.0,
        "timeout": 90,
        "also": ["x:1"],
        "mark_late": 3600,
        "gate": {"run": "true", "timeout": 30.0, "changed": True},
        "tools": ["b.c"],
        "max_tokens": 60_000,
        "kind": "prompt",
        "body": "p",
        "attempts_allowed": 1,
        "reply_mode": "agent",
    }
    assert found == {name: value for name, value in expected.items() if name not in ("prompt", "attempts", "reply")}


def test_a_command_is_started_once_unless_it_says_otherwise() -> None:
    assert parse(b'{"to": "a:1", "command": ",x"}').attempts_allowed == 1
    assert parse(b'{"to": "a:1", "command": ",x", "attempts": 2}').attempts_allowed == 2


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "the line is not JSON: Expecting value at column 1"),
        (b"hello", "the line is not JSON: Expecting value at column 1"),
        (b'{"to": "telegram:1", "text": "hello"} {}', "the line is not JSON: Extra data at column 39"),
        (b"[]", 'the line is not a JSON object, such as {"to": "telegram:1", "text": "hello"}'),
        (b"null", 'the line is not a JSON object, such as {"to": "telegram:1", "text": "hello"}'),
        (b'"\xff"', "the line is not UTF-8"),
        (b"\xff\xfe{\0}\0", "the line is not UTF-8"),
        (b'{"to": "a:\xed\xa0\x80", "text": "x"}', "the line is not UTF-8"),
        (b'{"timeout": NaN}', "NaN is not JSON"),
        (b'{"timeout": -Infinity}', "-Infinity is not JSON"),
        (b'{"to": "a:1", "to": "a:2", "text": "x"}', "the key 'to' stands there twice"),
        (b'{"to": "a:1", "text": "x", "context": {"a": "1", "a": "2"}}', "the key 'a' stands there twice"),
        (b'{"to": "a:1", "t\\u0065xt": "x", "text": "y"}', "the key 'text' stands there twice"),
        (b"[" * 60_000, "the line is nested too deeply"),
        (b'{"context": ' + b'{"a":' * 10_000, "the line is nested too deeply"),
    ],
)
def test_what_is_no_json_object_is_refused(raw: bytes, message: str) -> None:
    assert fault(raw) == message


def test_a_line_of_64_kib_is_read_and_one_byte_more_is_refused() -> None:
    room = MAX_LINE - len(line(text=""))
    assert len(parse(line(text="x" * room)).body) == room
    assert fault(line(text="x" * (room + 1))) == "the line is over 64 KiB"


def test_a_number_with_thousands_of_digits_is_refused() -> None:
    assert "digits" in fault(b'{"to": "a:1", "text": "x", "attempts": ' + b"1" * 5000 + b"}")


def test_the_longest_line_is_refused_within_a_moment() -> None:
    keys = [f"{number:x}" for number in range(7200)]
    raw = ("{" + ",".join(f'"{key}":0' for key in [*keys, keys[-1]]) + "}").encode()
    assert len(raw) <= MAX_LINE
    began = time.process_time()
    assert fault(raw) == "the key '1c1f' stands there twice"
    assert time.process_time() - began < 0.2


def test_the_error_carries_the_requests_own_id_where_it_can_be_read() -> None:
    for raw, known in [
        (line(id="mine", attempts=0), "mine"),
        (line(id="mine", ping=True), "mine"),
        (line(id="not mine", attempts=0), None),
        (line(id=[]), None),
        (b"nonsense", None),
    ]:
        with pytest.raises(RequestError) as caught:
            parse_request(raw, now=NOW, new_id=lambda: "poke-1")
        assert caught.value.id == known
        assert caught.value.exit_status == EX_PROTOCOL


# --- Questions


def test_ping_and_status_are_questions() -> None:
    assert isinstance(parse_request(b'{"ping": true}', now=NOW, new_id=str), Ping)
    assert isinstance(parse_request(b'{"chats": true}', now=NOW, new_id=str), ChatsQuery)
    query = parse_request(b'{"status": "a@2026-12-01T07:30:00Z"}', now=NOW, new_id=str)
    assert isinstance(query, StatusQuery)
    assert query.id == "a@2026-12-01T07:30:00Z"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"ping": 1}', 'ping goes alone, as {"ping": true}'),
        (b'{"ping": false}', 'ping goes alone, as {"ping": true}'),
        (b'{"ping": true, "id": "a"}', 'ping goes alone, as {"ping": true}'),
        (b'{"chats": 1}', 'chats goes alone, as {"chats": true}'),
        (b'{"chats": true, "ping": true}', 'ping goes alone, as {"ping": true}'),
        (b'{"chats": true, "to": "a:1"}', 'chats goes alone, as {"chats": true}'),
        (b'{"status": "a", "id": "a"}', 'status goes alone, as {"status": ID}'),
        (b'{"status": 1}', "must be text, not a number"),
        (b'{"status": "a b"}', "may hold letters, digits and - _ . : @ + / ~ only"),
    ],
)
def test_questions_go_alone(raw: bytes, message: str) -> None:
    assert message in fault(raw)


# --- Fields


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("to", 12345, "to must be text, not a number"),
        ("to", None, "to must be text, not nothing"),
        ("to", "", "to is empty"),
        ("to", "telegram", "to must be channel:chat_id, such as telegram:123456789"),
        ("to", ":1", "to must be channel:chat_id, such as telegram:123456789"),
        ("to", "telegram:", "to must be channel:chat_id, such as telegram:123456789"),
        ("to", "tele gram:1", "to must be channel:chat_id, such as telegram:123456789"),
        ("to", "a:" + "1" * 511, "to is longer than 512 characters"),
        ("to", "a:1 ", "to begins or ends with a space"),
        ("to", "a:1\n", "to holds a control or other unprintable character"),
        ("to", "a:\u202e1", "to holds a control or other unprintable character"),
        ("to", "a:\x9b1", "to holds a control or other unprintable character"),
        ("text", True, "text must be text, not true or false"),
        ("text", ["x"], "text must be text, not a list"),
        ("text", {}, "text must be text, not a mapping"),
        ("text", " \n\t", "text is empty"),
        ("text", "a\0b", "text holds a NUL character"),
        ("text", "\ud83d", "text holds half of a surrogate pair, which is no character"),
        ("session", "", "session is empty"),
        ("session", "a\tb", "session holds a control or other unprintable character"),
        ("session", 7, "session must be text, not a number"),
        ("model", " x", "model begins or ends with a space"),
        ("attempts", "3", "attempts must be a whole number, not text"),
        ("attempts", True, "attempts must be a whole number, not true or false"),
        ("attempts", 3.0, "attempts must be a whole number, not a number"),
        ("attempts", 0, "attempts must lie between 1 and 100"),
        ("attempts", 101, "attempts must lie between 1 and 100"),
        ("timeout", 0, "timeout must lie between 0 and 366 days, in seconds"),
        ("timeout", -1, "timeout must lie between 0 and 366 days, in seconds"),
        ("timeout", 366 * 86400 + 1, "timeout must lie between 0 and 366 days, in seconds"),
        ("timeout", "10", "timeout '10' is not a duration; write it like 90s, 15m, 2h, 1d or 1h30m"),
        ("timeout", [], "timeout must be seconds or a duration like 10m, not a list"),
        ("timeout", True, "timeout must be seconds or a duration like 10m, not true or false"),
        ("overlap", "both", "overlap must be skip or queue"),
        ("overlap", ["skip"], "overlap must be skip or queue"),
        ("reply", "Chat", "reply must be chat or agent"),
        ("reply", None, "reply must be chat or agent"),
        ("quiet", 1, "quiet must be true or false, not a number"),
        ("quiet", "yes", "quiet must be true or false, not text"),
        ("wait", 0, "wait must be true or false, not a number"),
        ("context", [], "context must be a mapping of words to text, not a list"),
        ("context", {"a": 1}, "context has a bad value: a must be text, not a number"),
        ("context", {"a": "\n"}, "context has a bad value: a holds a control or other unprintable character"),
        ("context", {"a": "x" * 1025}, "context has a bad value: a is longer than 1,024 characters"),
        ("context", {"a b": "x"}, "context has a key that is not a plain word (letters, digits, -, _, .; at most 64)"),
        ("context", {"_x": "x"}, "context may not set _x: keys that begin with _ are Bub's own"),
        ("context", {"channel": "x"}, "context may not set channel: that is what `to` is for"),
        ("context", {"chat_id": "x"}, "context may not set chat_id: that is what `to` is for"),
        ("context", {"model": "x"}, "context may not set model: that is what `model` is for"),
        ("context", {f"k{n}": "" for n in range(33)}, "context has more than 32 entries"),
        ("id", "", "id is empty"),
        ("id", "a b", "id may hold letters, digits and - _ . : @ + / ~ only"),
        ("id", 'a"b', "id may hold letters, digits and - _ . : @ + / ~ only"),
        ("id", "x" * 201, "id is longer than 200 characters"),
        ("id", 1, "id must be text, not a number"),
        ("reminder", "a b", "reminder must be a name: letters, digits, - _ . only, at most 64"),
        ("reminder", "x" * 65, "reminder must be a name: letters, digits, - _ . only, at most 64"),
        ("reminder", None, "reminder must be a name: letters, digits, - _ . only, at most 64"),
        ("fire_time", 5, "fire_time must be text, not a number"),
        ("fire_time", "a\x1bb", "fire_time holds a control or other unprintable character"),
        ("expires", "soon", "expires 'soon' is not an instant; write it like 2026-12-01T07:30:00Z"),
        ("expires", "2026-12-01T07:30:00", "expires '2026-12-01T07:30:00' has no offset; end it with Z or one like +01:00"),
        ("expires", -1, "expires is out of range"),
        ("expires", 1e300, "expires is out of range"),
        ("expires", True, "expires must be an instant like 2026-12-01T07:30:00Z, not true or false"),
        ("txet", "x", "unknown field 'txet', did you mean 'text'?"),
        ("grace", "1h", "unknown field 'grace'"),
        ("\x1b[31m", "x", "unknown field '\\x1b[31m'; known are to, prompt, text, command"),
        ("prompt", "x", "more than one of prompt, text, command; give exactly one"),
    ],
)  # fmt: skip
def test_a_bad_field_is_refused_by_name(field: str, value: object, message: str) -> None:
    found = fault(line(**{field: value}))
    assert found.startswith(message)
    assert found.isprintable()


def test_infinity_written_as_a_number_is_out_of_range() -> None:
    assert (
        fault(b'{"to": "a:1", "text": "x", "expires": 1e999}')
        == "expires is out of range; write an instant from 1970 to 9999"
    )
    assert "must lie between" in fault(b'{"to": "a:1", "text": "x", "timeout": 1e999}')


def test_a_request_needs_a_target_and_a_message() -> None:
    assert fault(b'{"text": "x"}') == "to is missing: channel:chat_id, such as telegram:123456789"
    assert fault(b'{"to": "a:1"}') == "none of prompt, text, command; give exactly one"


@pytest.mark.parametrize(
    ("to", "parts"),
    [("telegram:1", ("telegram", "1")), ("feishu:oc:1:2", ("feishu", "oc:1:2")), ("a:b c", ("a", "b c"))],
)
def test_what_follows_the_first_colon_is_the_chat_id(to: str, parts: tuple[str, str]) -> None:
    assert checkers.split_to(checkers.check_to(to)) == parts


@pytest.mark.parametrize("body", ["x" * MAX_LINE, "\x1b[31m red \x07", " indented", "多行\n文"])
def test_a_message_may_be_long_and_hold_any_character(body: str) -> None:
    assert wire.check_message(body) == body


def test_a_message_has_a_limit() -> None:
    with pytest.raises(ValueError, match="is longer than 65,536 characters"):
        wire.check_message("x" * (MAX_LINE + 1))


# --- The same request


@pytest.mark.parametrize(
    "same",
    [
        {"session": "telegram:1"},
        {"attempts": 3},
        {"timeout": 600},
        {"timeout": 600.0},
        {"timeout": "10m"},
        {"overlap": "skip"},
        {"reply": "chat"},
        {"quiet": False},
        {"context": {}},
        {"wait": False},
        {"expires": 5},
        {"id": "another"},
    ],
)
def test_content_is_equal_with_defaults_spelt_out_and_whatever_the_asking(same: dict[str, Any]) -> None:
    assert parse(line(**same)).content() == parse(line()).content()


@pytest.mark.parametrize(
    "other",
    [
        {"to": "telegram:2"},
        {"text": "hello "},
        {"session": "s"},
        {"attempts": 2},
        {"timeout": 600.5},
        {"overlap": "queue"},
        {"reply": "agent"},
        {"quiet": True},
        {"model": "m"},
        {"context": {"a": ""}},
        {"reminder": "r"},
        {"fire_time": "noon"},
    ],
)
def test_content_differs_with_whatever_is_done(other: dict[str, Any]) -> None:
    assert parse(line(**other)).content() != parse(line()).content()


def test_content_differs_by_kind_and_not_by_order() -> None:
    assert parse(b'{"to": "a:1", "prompt": "x"}').content() != parse(b'{"to": "a:1", "text": "x"}').content()
    one = b'{"to": "a:1", "text": "x", "context": {"a": "1", "b": "2"}}'
    two = b'{"context": {"b": "2", "a": "1"}, "text": "x", "to": "a:1"}'
    assert parse(one).content() == parse(two).content()


# --- Durations, instants, names


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1s", 1), ("90s", 90), ("15m", 900), ("2h", 7200), ("1d", 86400), ("1h30m", 5400), ("1d2h3m4s", 93784),
     ("0h5m", 300), ("366d", 366 * 86400), ("000000010s", 10)],
)  # fmt: skip
def test_a_duration_is_read(text: str, seconds: int) -> None:
    assert checkers.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "5", "m", "5x", "5 m", " 5m", "-5m", "+5m", "1.5h", "5M", "30m1h", "5m5m", "1h30", "\u0665m", "1_0m", "1" * 10 + "s"]
)  # fmt: skip
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; write it like 90s, 15m, 2h, 1d or 1h30m"):
        checkers.parse_duration(text)


@pytest.mark.parametrize("text", ["0s", "0d0h", "367d", "366d1s", "999999999d"])
def test_a_duration_has_bounds(text: str) -> None:
    with pytest.raises(ValueError, match="is out of range; a duration lies between 1s and 366d"):
        checkers.parse_duration(text)


@given(st.integers(min_value=-62_135_596_800, max_value=253_402_300_799))
def test_an_instant_survives_being_written(instant: int) -> None:
    assert wire.parse_instant(wire.iso(instant)) == instant


@pytest.mark.parametrize(
    ("instant", "text"), [(0, "1970-01-01T00:00:00Z"), (0.9, "1970-01-01T00:00:00Z"), (-0.5, "1969-12-31T23:59:59Z")]
)
def test_instants_are_written_to_the_second_below(instant: float, text: str) -> None:
    assert wire.iso(instant) == text


def test_an_offset_is_minded() -> None:
    assert wire.parse_instant("2026-12-01T08:30:00+01:00") == wire.parse_instant("2026-12-01T07:30:00Z")


@pytest.mark.parametrize(("name", "good"), [
    ("a", True), ("A-b_c.9", True), ("x" * 64, True), ("x" * 65, False), ("", False), ("a b", False), ("ä", False),
    ("a/b", False), ("a@b", False), ("²", False),
])  # fmt: skip
def test_names_are_letters_digits_and_three_signs(name: str, good: bool) -> None:
    assert checkers.is_name(name) is good


def test_a_firings_id_is_its_reminder_and_fire_time_and_fits_the_wire() -> None:
    name = "x" * 64
    crowd = f"{wire.firing_id(name, '2026-12-01T07:30:00Z')}/2026-12-01T07:30:00Z"
    assert wire.firing_id("pills", "2026-12-01T07:30:00Z") == "pills@2026-12-01T07:30:00Z"
    assert parse(line(id=crowd)).id == crowd


@pytest.mark.parametrize("name", wire.FIELDS)
def test_every_checker_refuses_what_json_can_hold_with_words_that_can_be_printed(name: str) -> None:
    checker: Callable[[object], Any] = wire.FIELDS[name]
    values: list[object] = [
        None,
        True,
        7,
        -1.5,
        "",
        "\ud800",
        "\0",
        "\x1b",
        [],
        [1],
        {},
        {"a": []},
        {"\x1b": "x"},
        {1: 2},
    ]
    for value in values:
        try:
            checker(value)
        except ValueError as error:
            assert str(error).isprintable()
