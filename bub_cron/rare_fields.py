"""The checkers of the fields that few requests have: targets beside `to`, gates, limits, addresses.

Invariants: as those of checkers.py.

Apart from wire.py, which every tick loads.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from bub_cron.checkers import NEVER, NONE, check_bool, check_timeout, check_to, line, string, wrong_type

MAX_ALSO = 9
MAX_TOOLS = 100
MAX_TOKENS = 10**12
GATE_TIMEOUT = 30.0  # seconds
GATE_KEYS = ("run", "timeout", "changed")
_SIZES = {"k": 1000, "m": 1_000_000}
PERIODS = ("day", "week", "month")


def parse_tokens(text: str) -> int:
    """Return a number of tokens such as `800`, `60k` or `2m`; ValueError says what is wrong."""
    digits, size = (text[:-1], _SIZES[text[-1:].lower()]) if text[-1:].lower() in _SIZES else (text, 1)
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= 12):
        raise ValueError(f"{text[:40]!r} is not a number of tokens; write it like 800, 60k or 2m")
    return int(digits) * size


def check_tokens(value: object) -> int:
    if isinstance(value, str):
        value = parse_tokens(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise wrong_type("a number of tokens like 60k", value)
    if not 1 <= value <= MAX_TOKENS:
        raise ValueError(f"must lie between 1 and {MAX_TOKENS // 1_000_000:,}m tokens")
    return value


def check_budget(value: object) -> str:
    tokens, slash, period = line(value, 40).partition("/")
    if not slash or period not in PERIODS:
        raise ValueError("must be tokens per day, week or month, such as 200k/day")
    check_tokens(tokens)
    return f"{tokens}/{period}"


def split_budget(budget: str) -> tuple[int, str]:
    """Return (tokens, period) of a budget that was checked."""
    tokens, _, period = budget.partition("/")
    return parse_tokens(tokens), period


def check_also(value: object) -> list[str]:
    targets = [value] if isinstance(value, str) else value
    if not isinstance(targets, list):
        raise wrong_type("a target or a list of them", value)
    if len(targets) > MAX_ALSO:
        raise ValueError(f"has more than {MAX_ALSO} targets")
    return list(dict.fromkeys(map(check_to, targets)))


def check_alert(value: object) -> str:
    return NONE if value == NONE else check_to(value)


def check_mark_late(value: object) -> float | str:
    if value == NEVER:
        return NEVER
    try:
        return check_timeout(value)
    except ValueError as error:
        raise ValueError(f"{error}, or {NEVER}") from error


def check_tools(value: object) -> list[str]:
    if not isinstance(value, list):
        raise wrong_type("a list of names, such as [web_fetch]; [] for none", value)
    if len(value) > MAX_TOOLS:
        raise ValueError(f"has more than {MAX_TOOLS} names")
    return list(dict.fromkeys(line(name, 128) for name in value))


def check_gate(value: object) -> dict[str, Any]:
    gate = value if isinstance(value, dict) else {"run": value}
    for key in gate:
        if key not in GATE_KEYS:
            raise ValueError(f"has an unknown key {str(key)[:40]!r}; known are {', '.join(GATE_KEYS)}")
    if "run" not in gate:
        raise ValueError("has no run, the command")
    timeout = check_timeout(gate.get("timeout", GATE_TIMEOUT))
    return {"run": _run(gate["run"]), "timeout": float(timeout), "changed": check_bool(gate.get("changed", False))}


def _run(value: object) -> str | list[str]:
    if isinstance(value, str):
        if not string(value, 4096).strip():
            raise ValueError("is empty")
        return value
    if not isinstance(value, list) or not value:
        raise wrong_type("a shell line, or a list of a program and its arguments", value)
    return [string(word, 4096) if word else "" for word in value]


def check_address(value: object) -> str:
    text = line(value, 2048)
    try:
        parts = urlsplit(text)
        is_right = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
        has_user = "@" in parts.netloc
    except ValueError:
        is_right = has_user = False
    if has_user:
        raise ValueError("may hold no user and password: a ping doesn't send them")
    if not is_right or " " in text or not text.isascii():
        raise ValueError("must be an http or https address, such as https://hc-ping.com/...")
    return text
