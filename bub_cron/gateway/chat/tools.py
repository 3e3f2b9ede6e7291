"""The agent's tools: `reminder.add` and its five siblings. Thin: what they do is `book.py`'s.

Invariants:
- One flat schema for each, of texts, numbers and booleans; what is given is judged when it is called.
- A tool never raises for what it was given: it returns the reason, for the model or for whoever typed the comma command.
- The live gateway is reached through the turn's state, not through anything of the process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from bub import tool
from bub.tools import REGISTRY, ToolContext

from bub_cron.errors import BubCronError
from bub_cron.gateway.chat.callers import RefusedError, caller_of

_SECONDS = 60.0  # that files may take; a disk that hangs must not hold the chat for ever

_STRING = {"type": "string"}
_NAME = {**_STRING, "description": "The reminder's name, as reminder_list shows it."}
_VALUES: dict[str, dict[str, str]] = {
    "text": {**_STRING, "description": "Sent to the chat word for word. The usual choice; no model runs."},
    "prompt": {
        **_STRING,
        "description": "Runs you with this prompt at each fire time and sends your reply. Only where something must be "
        "looked up or thought about then. Say what to do then, without the schedule.",
    },
    "after": {**_STRING, "description": "Once, so long from now, such as 20m, 2h, 1d. Use it for 'in 20 minutes'."},
    "at": {
        **_STRING,
        "description": "Once, a local date and time: 2026-12-01 08:30. Several with commas between them.",
    },
    "every": {**_STRING, "description": "Again and again, such as 30m, 2h, 1d, 2w; days and weeks need start."},
    "cron": {**_STRING, "description": "Five cron fields, local time, such as 0 9 * * mon-fri."},
    "rrule": {**_STRING, "description": "An RFC 5545 rule such as FREQ=MONTHLY;BYDAY=-1FR; needs start."},
    "start": {
        **_STRING,
        "description": "Local date and time before which it doesn't fire, and from which every counts.",
    },
    "until": {**_STRING, "description": "Local date (that day included) or date and time after which it doesn't fire."},
    "times": {"type": "integer", "description": "How many times in all; needs start."},
    "timezone": {**_STRING, "description": "IANA name such as Europe/Berlin. Leave it out for the user's usual zone."},
    "quiet": {"type": "boolean", "description": "With prompt: you may answer <no_reply/> then, and nothing is sent."},
    "pause_until": {**_STRING, "description": "Local date or date and time until which it is paused."},
    "enabled": {"type": "boolean", "description": "false turns it off without removing it."},
}
_ADD = {"name": {**_STRING, "description": "Letters, digits, - _ . only; made of the message if left out."}, **_VALUES}
_CHANGE = {"name": _NAME, **_VALUES}
_ONE_NAME = {"name": _NAME}


async def _add(*words: str, context: ToolContext, **given: Any) -> str:
    """Remind the user in this chat, once or on a schedule: 'remind me', 'every morning', 'in 20 minutes', 'on Friday'.
    Give one of text, prompt and one of after, at, every, cron, rrule. Read the result back to the user."""
    return await _called(context, "add", _ADD, words, given)


async def _list(*words: str, context: ToolContext, **given: Any) -> str:
    """List the reminders of this chat: names, schedules, next times."""
    return await _called(context, "list", {}, words, given)


async def _change(*words: str, context: ToolContext, **given: Any) -> str:
    """Change a reminder of this chat. Give its name and only what changes; the rest stays. 'none' clears start, until, times
    or pause_until."""
    return await _called(context, "change", _CHANGE, words, given)


async def _remove(*words: str, context: ToolContext, **given: Any) -> str:
    """Remove a reminder of this chat."""
    return await _called(context, "remove", _ONE_NAME, words, given)


async def _fire(*words: str, context: ToolContext, **given: Any) -> str:
    """Fire a reminder of this chat now, besides its schedule."""
    return await _called(context, "fire", _ONE_NAME, words, given)


async def _log(*words: str, context: ToolContext, **given: Any) -> str:
    """Tell what became of the latest firings in this chat, or of one reminder: delivered, failed, missed, and why."""
    return await _called(context, "log", _ONE_NAME, words, given)


_TOOLS = {
    "reminder.add": (_add, _ADD, ()),
    "reminder.list": (_list, {}, ()),
    "reminder.change": (_change, _CHANGE, ("name",)),
    "reminder.remove": (_remove, _ONE_NAME, ("name",)),
    "reminder.fire": (_fire, _ONE_NAME, ("name",)),
    "reminder.log": (_log, _ONE_NAME, ()),
}


def offer(setting: str) -> None:
    """Put the tools into Bub's registry, or with the setting `off` take them out of it."""
    for name, (function, properties, required) in _TOOLS.items():
        if setting == "off":
            REGISTRY.pop(name, None)
            continue
        parameters: dict[str, Any] = {"type": "object", "properties": properties}
        if required:
            parameters["required"] = list(required)
        REGISTRY[name] = replace(tool(function, name=name, context=True), parameters=parameters)


async def _called(
    context: ToolContext, what: str, known: Mapping[str, Any], words: tuple[str, ...], given: Mapping[str, Any]
) -> str:
    try:
        values = _values(known, words, given)
        caller = caller_of(context.state)
        name = str(values.pop("name", "")).strip()
        if what in ("change", "remove", "fire") and not name:
            raise RefusedError("name is missing; reminder.list shows the names")
        async with asyncio.timeout(_SECONDS):
            await asyncio.to_thread(_load_book)
            book = caller.book
            match what:
                case "add" | "change":
                    return await asyncio.to_thread(getattr(book, what), caller, name, values)
                case "list":
                    return await asyncio.to_thread(book.overview, caller)
                case "log":
                    return await asyncio.to_thread(book.log, caller, name)
                case "remove":
                    return await asyncio.to_thread(book.remove, caller, name)
                case _:
                    return await book.fire(await asyncio.to_thread(book.request_to_fire, caller, name))
    except TimeoutError:
        return f"Not known: the disk did not answer within {_SECONDS:g} s. reminder.list shows whether it was done."
    except BubCronError as error:
        return f"Not done: {error}"


def _load_book() -> None:
    """Load what reads and judges reminders; the first time, that reads some files."""
    try:
        import_module("bub_cron.gateway.chat.book")
    except ImportError as error:
        raise RefusedError(f"bub-cron was changed under this gateway, which needs a restart: {error}") from error


def _values(known: Mapping[str, Any], words: tuple[str, ...], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given, without what models fill in for nothing."""
    if words and ("name" not in known or len(words) > 1 or "name" in given or known is _ADD):
        raise RefusedError(f"what is {words[0]!r}? write key=value, with keys of {', '.join(known) or 'none'}")
    values = {key: value for key, value in given.items() if value is not None and value != ""}
    for key, value in values.items():
        if key not in known:
            raise RefusedError(f"there is no parameter {key} here; known are {', '.join(known) or 'none'}")
        is_list_of_dates = key == "at" and isinstance(value, list) and all(isinstance(one, str) for one in value)
        if not isinstance(value, str | int | float) and not is_list_of_dates:
            raise RefusedError(f"{key} must be one value, not {type(value).__name__}")
    return {"name": words[0], **values} if words else values
