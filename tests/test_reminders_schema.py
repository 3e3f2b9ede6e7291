"""The schema and the starter file: they say what the parser says."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from test_reminders import BODY, HEAD, faults, parse

from bub_cron import reminders
from bub_cron.reminders import values


def test_the_starter_holds_one_reminder_that_does_not_fire() -> None:
    (hello,) = parse(reminders.STARTER)
    assert not hello.enabled
    assert reminders.STARTER.startswith("# yaml-language-server: $schema=./reminders.schema.json\n")


def uncommented(starter: str) -> str:
    """The starter with its examples: lines of it are comments that are indented; prose begins in the first column."""
    return re.sub(r"(?m)^( +)# ", r"\1", starter)


def test_the_starters_examples_are_valid_and_show_every_key() -> None:
    found = parse(uncommented(reminders.STARTER))
    assert [one.name for one in found] == [
        "hello",
        "standup",
        "dentist",
        "bins",
        "invoices",
        "lunch",
        "inbox",
        "backup",
    ]
    text = uncommented(reminders.STARTER)
    shown = {key for key in values.REMINDER_KEYS if re.search(rf"(?m)^ +{key}:", text)}
    assert set(values.REMINDER_KEYS) - shown <= {"model", "context"}


def accepts(schema: Any, value: Any, root: Any) -> bool:
    """A validator of the few words of JSON Schema that the file's schema uses; any other word fails the test."""
    types = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}

    def has_type(names: Any) -> bool:
        names = [names] if isinstance(names, str) else names
        return any(isinstance(value, types[one]) and (one != "integer" or value is not True) for one in names)

    def is_known(key: str) -> bool:
        by_pattern = any(re.search(pattern, key) for pattern in schema.get("patternProperties", {}))
        return key in schema.get("properties", {}) or by_pattern

    def sub(inner: Any, part: Any) -> bool:
        return accepts(inner, part, root)

    is_dict, is_list, is_text = isinstance(value, dict), isinstance(value, list), isinstance(value, str)
    condition = "if" not in schema or sub(schema["if"], value)
    words: dict[str, Callable[[Any], bool]] = {
        "type": has_type,
        "enum": lambda choices: value in choices,
        "pattern": lambda pattern: not is_text or re.search(pattern, value) is not None,
        "minLength": lambda least: not is_text or len(value) >= least,
        "maxLength": lambda most: not is_text or len(value) <= most,
        "minimum": lambda least: not isinstance(value, int) or value >= least,
        "maximum": lambda most: not isinstance(value, int) or value <= most,
        "minItems": lambda least: not is_list or len(value) >= least,
        "items": lambda inner: not is_list or all(sub(inner, item) for item in value),
        "required": lambda keys: not is_dict or set(keys) <= set(value),
        "maxProperties": lambda most: not is_dict or len(value) <= most,
        "properties": lambda inner: not is_dict or all(sub(inner[key], value[key]) for key in inner if key in value),
        "patternProperties": lambda inner: not is_dict or all(
            sub(inner[pattern], part) for pattern in inner for key, part in value.items() if re.search(pattern, key)
        ),
        "additionalProperties": lambda inner: not is_dict or all(
            inner is not False and sub(inner, part) for key, part in value.items() if not is_known(key)
        ),
        "propertyNames": lambda inner: not is_dict or all(sub(inner, key) for key in value),
        "oneOf": lambda several: sum(sub(inner, value) for inner in several) == 1,
        "anyOf": lambda several: any(sub(inner, value) for inner in several),
        "allOf": lambda several: all(sub(inner, value) for inner in several),
        "if": lambda _: True,
        "else": lambda inner: condition or sub(inner, value),
        "$ref": lambda path: sub(root["$defs"][path.removeprefix("#/$defs/")], value),
        **dict.fromkeys(["$schema", "$defs", "title", "description", "default"], lambda _: True),
    }  # fmt: skip
    return all(words[word](what) for word, what in schema.items())


def as_editor_reads(text: str) -> Any:
    """Load as YAML 1.2, which language servers use: no dates."""
    return yaml.load(re.sub(r"(\d{4}-\d\d-\d\d[^,\]\n]*)", r'"\1"', text), Loader=yaml.SafeLoader)


CALENDARS = (
    "calendars:\n  vac: {dates: [2026-12-24..2027-01-02, 2027-05-14]}\n  work: {weekdays: mon-fri, except: vac}\n"
)
GOOD = [
    CALENDARS + HEAD + BODY + "    only: work\n    except: [vac]\n",
    "calendars: {de: {country: DE, subdivision: BE}}\n" + HEAD + BODY + "    only: de\n",
    HEAD + "  a:\n    every: 2w\n    start: 2026-12-01 19:00\n    until: 2027-12-31\n    times: 5\n    text: hi\n",
    HEAD
    + "  a:\n    rrule: FREQ=MONTHLY;BYDAY=-1FR\n    start: 2026-12-01 8:30\n    until: 2027-12-31 12:00\n    text: hi\n",
    HEAD + "  a:\n    at: 2026-12-01T08:30:00.000+0100\n    text: hi\n",
    reminders.STARTER,
    uncommented(reminders.STARTER).replace("  # or", " #"),
    "reminders:\n",
    "defaults:\nreminders: {}\n",
    HEAD + BODY,
    "reminders:\n" + BODY + "    to: x:1\n",
    HEAD + "  a:\n    at: [2026-12-01 08:30, 2026-12-01T08:30+01:00]\n    command: x\n    context: {k: ''}\n",
    HEAD + "  a:\n    cron: ' @Daily '\n    prompt: hi\n    attempts: 100\n    model: m\n    timezone: UTC\n",
]
BAD = [
    "calendars: {a: {}}\n" + HEAD + BODY,
    "calendars: {a: {other: x}}\n" + HEAD + BODY,
    "calendars: {a: {dates: [24.12.2026]}}\n" + HEAD + BODY,
    "calendars: {a: {subdivision: BE}}\n" + HEAD + BODY,
    "calendars: {a b: {weekdays: mon}}\n" + HEAD + BODY,
    *(
        HEAD + BODY + f"    {line}\n"
        for line in ("start: 2026-12-01", "until: x", "times: 0", "times: 10001", "only: []")
    ),
    HEAD + BODY.replace("a:", "-a:"),
    "{}\n",
    "reminders: []\n",
    "reminders: {}\nother: {}\n",
    "reminders:\n" + BODY,
    HEAD + "  a:\n    every: 30m\n",
    HEAD + "  a:\n    text: hi\n",
    HEAD + BODY.replace("a:", "a b:"),
    *(HEAD + BODY + f"    {line}\n" for line in ("prompt: hi", "cron: 0 9 * * *", "other: x", "to: x", "to: 5")),
    *(HEAD + BODY + f"    {line}\n" for line in ("attempts: 0", "attempts: 1.5", "attempts: 101", "quiet: x")),
    *(HEAD + BODY + f"    {line}\n" for line in ("grace: 5", "grace: x", "grace: ''", "overlap: x", "reply: x")),
    *(
        HEAD + BODY + f"    {line}\n"
        for line in ("context: {k: 1}", "context: {_k: x}", "context: {model: x}", "model: 5")
    ),
    HEAD + "  a:\n    every: 30m\n    prompt: ',help'\n",
    HEAD + "  a:\n    every: 30m\n    text: ' '\n",
    HEAD + "  a:\n    at: 2026-12-01\n    text: hi\n",
    HEAD + "  a:\n    at: []\n    text: hi\n",
    HEAD + "  a:\n    cron: 0 9 * *\n    text: hi\n",
    "defaults: {cron: 0 9 * * *}\nreminders:\n",
]


@pytest.mark.parametrize("text", GOOD)
def test_the_schema_accepts_what_the_parser_accepts(text: str) -> None:
    schema = reminders.json_schema()
    assert faults(text) == []
    assert accepts(schema, as_editor_reads(text), schema)


@pytest.mark.parametrize("text", BAD)
def test_the_schema_refuses_what_the_parser_refuses(text: str) -> None:
    schema = reminders.json_schema()
    assert faults(text) != []
    assert not accepts(schema, as_editor_reads(text), schema)


def test_the_schema_describes_every_key() -> None:
    schema: Any = reminders.json_schema()
    reminder = schema["$defs"]["reminder"]["properties"]
    assert tuple(reminder) == values.REMINDER_KEYS
    assert tuple(schema["properties"]["defaults"]["properties"]) == values.DEFAULT_KEYS
    assert all(reminder[key]["description"] for key in reminder)
