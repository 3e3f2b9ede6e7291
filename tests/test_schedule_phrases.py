"""The phrase that says when a schedule fires."""

from __future__ import annotations

import pytest

from bub_cron.schedule import describe, parse_at, parse_cron, parse_every


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("0 9 * * 1-5", "at 09:00, Monday to Friday"),
        ("0 9 * * *", "at 09:00, every day"),
        ("0,30 9 * * *", "at 09:00 and 09:30, every day"),
        ("* * * * *", "every minute"),
        ("*/5 * * * *", "every 5 minutes"),
        ("*/7 * * * *", "at minutes 0, 7, 14, 21, 28, 35, 42, 49 and 56 of every hour"),
        ("0 * * * *", "at minute 0 of every hour"),
        ("*/15 9-17 * * mon,wed,fri", "every 15 minutes from 09:00 to 17:45, on Monday, Wednesday and Friday"),
        ("* 2 * * *", "every minute from 02:00 to 02:59"),
        ("0 9-17 * * *", "at minute 0 of the hours 9 to 17"),
        ("10/5 9 * * *", "at minutes 10, 15, 20, 25, 30, 35, 40, 45, 50 and 55 of the hour 9"),
        ("0 9 15 * *", "at 09:00, on day 15 of the month"),
        ("0 9 1-7,15 * *", "at 09:00, on days 1 to 7 and 15 of the month"),
        ("0 9 L * *", "at 09:00, on the last day of the month"),
        ("0 9 15 * 5", "at 09:00, on day 15 of the month or on Friday"),
        ("0 9 15 * 1-5", "at 09:00, on day 15 of the month or on Monday to Friday"),
        ("0 9 15 * 5#2", "at 09:00, on day 15 of the month or on the second Friday of the month"),
        ("0 9 */15 * 5", "at 09:00, on Fridays that are day 1, 16 or 31 of the month"),
        ("0 9 */15 * 5#3", "at 09:00, on the third Friday of the month if that is day 1, 16 or 31 of the month"),
        ("0 9 1 * */3", "at 09:00, on Wednesdays, Saturdays and Sundays that are day 1 of the month"),
        ("0 9 */1 * 5", "at 09:00, on Friday"),
        ("0 9 1-31 * 5", "at 09:00, every day"),
        ("0 9 31 2 1", "at 09:00, on Monday, in February"),
        ("0 9 * * sun", "at 09:00, on Sunday"),
        ("0 9 * * sat,sun", "at 09:00, on Saturday and Sunday"),
        ("0 9 * * L5", "at 09:00, on the last Friday of the month"),
        ("0 9 1 1-3,7 *", "at 09:00, on day 1 of the month, in January to March and July"),
    ],
)
def test_describe_a_cron(text: str, phrase: str) -> None:
    """Right under this project's day rule: "or" where either suffices, "that are" where both are needed."""
    assert describe(parse_cron(text, "Europe/Berlin", "reminder")) == f"{phrase}, Europe/Berlin"


@pytest.mark.parametrize(
    ("seconds", "phrase"),
    [(60, "minute"), (1800, "30 minutes"), (3600, "hour"), (5400, "90 minutes"), (7200, "2 hours"), (86_400, "day")],
)
def test_describe_every(seconds: int, phrase: str) -> None:
    """In the largest whole unit."""
    assert describe(parse_every(seconds)) == f"every {phrase}, counted from the Unix epoch in UTC"


def test_describe_at() -> None:
    """In the reminder's zone; a long list by its ends."""
    assert describe(parse_at(["2026-12-01 08:30"], "Europe/Berlin")) == "once, at 2026-12-01 08:30 Europe/Berlin"
    assert describe(parse_at(["2026-12-01T08:30Z"], "Europe/Berlin")) == "once, at 2026-12-01 09:30 Europe/Berlin"
    two = parse_at(["2026-12-02 08:30", "2026-12-01 08:30"], "UTC")
    assert describe(two) == "2 times, at 2026-12-01 08:30 and 2026-12-02 08:30 UTC"
    many = parse_at([f"2026-12-{day:02} 08:30" for day in range(1, 11)], "UTC")
    assert describe(many) == "10 times, first at 2026-12-01 08:30 and last at 2026-12-10 08:30 UTC"
