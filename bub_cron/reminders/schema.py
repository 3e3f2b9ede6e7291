"""The file's JSON Schema, for editors.

Invariants: what `parse` takes, the schema takes, and it describes every key.
"""

from __future__ import annotations

from bub_cron import wire
from bub_cron.reminders.values import DEFAULT_KEYS, REMINDER_KEYS, SCHEDULES

_Schema = dict[str, object]


def _text(description: str, pattern: str = r"^\S(.*\S)?$", limit: int = 512) -> _Schema:
    return {"description": description, "type": "string", "maxLength": limit, "pattern": pattern}


def _message(description: str, pattern: str = r"\S") -> _Schema:
    return _text(description, pattern, wire.MAX_LINE)


def _duration(description: str) -> _Schema:
    return _text(description, r"^(?=.)([0-9]{1,9}w)?([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$")


def _choice(description: str, *choices: object) -> _Schema:
    """The first choice is the default."""
    return {"description": description, "enum": list(choices), "default": choices[0]}


_AT: _Schema = {
    "type": "string",
    "pattern": r"^ *[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{1,2}:[0-9]{2}(:00([.]0+)?)? ?(Z|[+-][0-9]{2}:?[0-9]{2})? *$",
}
_LOCAL = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{1,2}:[0-9]{2}(:00([.]0+)?)?"
_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"


def _one_or_more(description: str, item: _Schema) -> _Schema:
    return {"description": description, "oneOf": [item, {"type": "array", "minItems": 1, "items": item}]}


_CALENDAR_NAME: _Schema = {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"}
_CALENDAR: dict[str, _Schema] = {
    "dates": _one_or_more(
        "Days such as 2026-12-24, and ranges such as 2026-12-24..2027-01-02.",
        {"type": "string", "pattern": f"^ *{_DAY} *([.]{{2}} *{_DAY} *)?$"},
    ),
    "weekdays": _text("Weekdays as in a cron, such as mon-fri."),
    "country": _text("The holidays of a country: its two letters, in quotes for NO."),
    "subdivision": _text("A part of the country that has holidays of its own."),
    "ics": _text("An iCalendar file beside this one: the days of its all-day events."),
    "except": _one_or_more("Calendars whose days are taken away.", _CALENDAR_NAME),
}

_KEYS: dict[str, _Schema] = {
    "cron": _text(
        "Five fields: minute, hour, day of month, month, day of week. Names, lists, ranges, steps, L, #, "
        "H for a stable spread; or @daily and its kin. Put it in quotes.",
        r"^\s*(@[A-Za-z]+|\S+(\s+\S+){4})\s*$",
        1000,
    ),
    "every": _duration(
        "A distance: 30m or 2h of elapsed time, 1d or 2w on the wall clock. It counts from start, else from the Unix epoch in"
        " UTC."
    ),
    "at": _one_or_more("A local date and time such as 2026-12-01 08:30, or a list of them.", _AT),
    "rrule": _text("A rule of RFC 5545, such as FREQ=MONTHLY;BYDAY=-1FR. It counts from start.", r"^\s*\S+\s*$", 1000),
    "start": _text(
        "A local date and time, not before which it fires, and from which it counts.", f"^ *{_LOCAL} *$", 64
    ),
    "until": _text(
        "A local date, that day included, or a date and time, after which it doesn't fire.",
        f"^ *({_DAY}|{_LOCAL}) *$",
        64,
    ),
    "times": {
        "description": "How many fire times it has in all, from start on.",
        "type": "integer",
        "minimum": 1,
        "maximum": 10_000,
    },
    "only": _one_or_more("Calendars, one or a list: it fires only on their days.", _CALENDAR_NAME),
    "except": _one_or_more("Calendars, one or a list: it doesn't fire on their days.", _CALENDAR_NAME),
    "prompt": _message("What a turn of the agent is run with; its reply goes to the chat.", r"^\s*[^,\s]"),
    "text": _message("Sent word for word: no model, no tokens."),
    "command": _message("A Bub command; runs only if the gateway allows commands."),
    "to": _text(
        "Where it goes: channel:chat_id. Everything after the first colon is the chat id.",
        r"^[A-Za-z0-9._-]{1,64}:(.*\S)$",
    ),
    "session": _text("The Bub session that the turn belongs to. Default: the same as `to`."),
    "timezone": _text("An IANA name such as Europe/Berlin. Default: the machine's zone."),
    "enabled": _choice("false keeps the reminder from firing.", True, False),
    "pause_until": _text(
        "A local date, until that day begins, or a date and time, before which it doesn't run.",
        f"^ *({_DAY}|{_LOCAL}) *$",
        64,
    ),
    "grace": _duration("How late it may still start. Default: 1h, and 24h for `at`."),
    "catch_up": _choice("Of the fire times missed within grace, start the latest or all.", "latest", "all"),
    "overlap": _choice("When an earlier firing still runs: skip this one, or queue it.", "skip", "queue"),
    "delivery": _choice(
        "at-least-once: a message whose send was not seen to its end is sent again.", "at-most-once", "at-least-once"
    ),
    "attempts": {
        "description": "Starts allowed; 1 means at most once. Default: 3, and 1 for `command`.",
        "type": "integer",
        "minimum": 1,
        "maximum": 100,
    },
    "timeout": _duration("The limit of one attempt. Default: 10m."),
    "reply": _choice(
        "chat: the turn's reply goes there. agent: the agent sends by its own channel skill.", "chat", "agent"
    ),
    "quiet": _choice("true: the model may answer <no_reply/>, and nothing is sent.", False, True),
    "model": _text("A Bub model id for this reminder alone."),
    "context": {
        "description": "Strings added to the message's context, such as thread_id.",
        "type": "object",
        "maxProperties": 32,
        "propertyNames": {"pattern": r"^(?!_)(?!(channel|chat_id|model)$)[A-Za-z0-9._-]{1,64}$"},
        "additionalProperties": {"type": "string", "maxLength": 1024},
    },
}


def json_schema() -> dict[str, object]:
    """Return the schema; see `bub_cron.reminders.json_schema`."""
    reminder = {
        "description": "One reminder: one of cron, every, at, rrule; one of prompt, text, command; and to.",
        "type": "object",
        "properties": {key: _KEYS[key] for key in REMINDER_KEYS},
        "additionalProperties": False,
        "allOf": [{"oneOf": [{"required": [key]} for key in keys]} for keys in (SCHEDULES, wire.MESSAGES)],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "bub-cron reminders",
        "type": "object",
        "properties": {
            "defaults": {
                "description": "Values for every reminder that doesn't give its own.",
                "type": ["object", "null"],
                "properties": {key: _KEYS[key] for key in DEFAULT_KEYS},
                "additionalProperties": False,
            },
            "calendars": {
                "description": "Sets of days by their names, for only and except.",
                "type": ["object", "null"],
                "patternProperties": {
                    "^[A-Za-z0-9._-]{1,64}$": {
                        "type": "object",
                        "properties": _CALENDAR,
                        "additionalProperties": False,
                        "anyOf": [{"required": [key]} for key in ("dates", "weekdays", "country", "ics")],
                    }
                },
                "additionalProperties": False,
            },
            "reminders": {
                "description": "Each reminder by its name: letters, digits, -, _ and ., at most 64.",
                "type": ["object", "null"],
                "patternProperties": {"^[A-Za-z0-9_][A-Za-z0-9._-]{0,63}$": {"$ref": "#/$defs/reminder"}},
                "additionalProperties": False,
            },
        },
        "required": ["reminders"],
        "additionalProperties": False,
        # A reminder needs its own `to` unless the defaults have one.
        "if": {"required": ["defaults"], "properties": {"defaults": {"type": "object", "required": ["to"]}}},
        "else": {"properties": {"reminders": {"additionalProperties": {"required": ["to"]}}}},
        "$defs": {"reminder": reminder},
    }
