"""late: when a message says that it comes late, and how."""

import time
from typing import Any

import pytest

from bub_cron.gateway.late import lateness, mark, minutes, told
from bub_cron.wire import Request, parse_instant

DUE = "2026-12-01T20:00:00Z"


def request(**fields: Any) -> Request:
    return Request({"to": "t:1", "text": "hi", "fire_time": DUE, **fields}, new_id=lambda: "a", now=0)


@pytest.mark.parametrize(
    ("fields", "seconds", "said"),
    [
        ({}, 600, ""),
        ({}, 601, "(due at 21:00, 10 minutes late)"),
        ({"mark_late": 60}, 42 * 60 + 59, "(due at 21:00, 42 minutes late)"),
        ({"mark_late": 0.5}, 1, "(due at 21:00, 1 minute late)"),
        ({"mark_late": "never"}, 86400, ""),
        ({"timezone": "Asia/Tokyo"}, 3 * 3600 + 300, "(due at 05:00, 3 hours 5 minutes late)"),
        ({"timezone": "Mars/Base"}, 700, "(due at 21:00 CET, 11 minutes late)"),
        ({"fire_time": "noon"}, 86400, ""),
        ({"fire_time": "0001-01-01T00:00:00Z"}, 0, "(due at 0001-01-01T00:00:00Z, 739950 days 20 hours late)"),
        ({"fire_time": None}, 86400, ""),
        ({}, -86400, ""),
    ],
)
def test_the_mark(fields: dict[str, Any], seconds: float, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    assert mark(request(**fields), parse_instant(DUE) + seconds) == said


@pytest.mark.parametrize(
    ("fields", "seconds", "said"),
    [
        ({}, 0, "due at 2026-12-01T20:00:00Z (2026-12-01 21:00 in CET)"),
        ({"mark_late": "never"}, 2520, "due at 2026-12-01T20:00:00Z (2026-12-01 21:00 in CET), 42 minutes late"),
        ({"timezone": "Asia/Tokyo"}, 60, "due at 2026-12-01T20:00:00Z (2026-12-02 05:00 in Asia/Tokyo), 1 minute late"),
        ({"timezone": "Mars/Base"}, -5, "due at 2026-12-01T20:00:00Z (2026-12-01 21:00 in CET)"),
        ({"fire_time": "noon"}, 0, "due at noon"),
        ({"fire_time": None}, 0, ""),
    ],
)
def test_what_a_turn_is_told(
    fields: dict[str, Any], seconds: float, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    assert told(request(**fields), parse_instant(DUE) + seconds) == said


def test_lengths_of_time_in_words() -> None:
    assert [minutes(seconds) for seconds in (5, 60, 3600, 90061, 3 * 86400)] == [
        "1 minute", "1 minute", "1 hour", "1 day 1 hour", "3 days",
    ]  # fmt: skip
    assert lateness(request(), parse_instant(DUE) + 5) == 5
