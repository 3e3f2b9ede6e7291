"""reminders.suspicions: what is legal but may not be meant, and nothing else."""

from datetime import UTC, datetime

import pytest
from test_reminders import HEAD, parse

from bub_cron import reminders
from bub_cron.reminders import Notice

NOW = int(datetime(2026, 11, 23, 12, 0, tzinfo=UTC).timestamp())


def suspicions(*bodies: str, now: int = NOW, zone: str = "Europe/Berlin") -> list[str]:
    head = f"defaults:\n  to: x:1\n  timezone: {zone}\nreminders:\n"
    entries = [f"  r{number}: {{{body}}}\n" for number, body in enumerate(bodies)]
    found = reminders.suspicions(parse(head + "".join(entries)), now)
    return [f"{notice.line}:{notice.column}: {notice.message}" for notice in found]


@pytest.mark.parametrize(
    "body",
    [
        'cron: "0 9 * * mon-fri", prompt: hi',
        'cron: "* * * * *", text: hi',
        'cron: "30 * * * *", prompt: hi',
        'cron: "*/5 2 * * *", text: hi',  # follows the clock
        'cron: "@hourly", prompt: hi',
        'cron: "0 9 1 * *", text: hi',
        "every: 2m, prompt: hi",
        "every: 1m, text: hi",
        "at: 2026-12-01 08:30, text: hi",
        "at: [2020-12-01 08:30, 2026-12-01 08:30], text: hi",
        'at: ["2027-03-28 02:30+01:00"], text: hi',
        'cron: "30 2 13 * fri", text: hi, enabled: false',
    ],
)
def test_nothing_is_suspicious_about(body: str) -> None:
    assert suspicions(body) == []


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('cron: "* * * * *", prompt: hi', "runs a model 1,440 times a day"),
        ('cron: "* * * * mon", prompt: hi', "runs a model 1,440 times a day"),
        ("every: 1m, prompt: hi", "runs a model 1,440 times a day"),
        ("at: 2020-12-01 08:30, text: hi", "is past: 2020-12-01 08:30 will not come again"),
    ],
)
def test_something_is_suspicious_about(body: str, expected: str) -> None:
    assert suspicions(body) == [f"5:3: r0 {expected}"]


def test_both_kinds_of_days_are_spelled_out() -> None:
    (notice,) = suspicions('cron: "0 9 13 * fri", text: hi')
    assert notice.startswith("5:3: r0 restricts both day of month and day of week: it fires at 09:00")
    assert "13" in notice
    assert "Friday" in notice


@pytest.mark.parametrize(
    ("schedule", "zone", "expected"),
    [
        (
            'cron: "30 2 * * *"',
            "Europe/Berlin",
            [
                "02:30 doesn't exist on 2027-03-28; it fires at 03:00 instead",
                "02:30 comes twice on 2027-10-31; it fires the first time",
            ],
        ),
        ("at: 2027-03-28 02:15", "Europe/Berlin", ["02:15 doesn't exist on 2027-03-28; it fires at 03:00 instead"]),
        ("at: 2027-10-31 02:15", "Europe/Berlin", ["02:15 comes twice on 2027-10-31; it fires the first time"]),
        ('cron: "@daily"', "America/Havana", [
            "00:00 doesn't exist on 2027-03-14; it fires at 01:00 instead",
            "00:00 comes twice on 2027-11-07; it fires the first time",
        ]),
        ('cron: "15 2 * * *"', "Australia/Lord_Howe", ["02:15 doesn't exist on 2027-10-03; it fires at 02:30 instead"]),
        ('cron: "30 2 * * mon"', "Europe/Berlin", []),
        ('cron: "30 2 * * *"', "Asia/Tokyo", []),
    ],
)  # fmt: skip
def test_times_that_the_clock_skips_or_repeats(schedule: str, zone: str, expected: list[str]) -> None:
    prefix = f"5:3: r0 meets a change of clocks: in {zone}, "
    assert suspicions(f"{schedule}, text: hi", zone=zone) == [prefix + text for text in expected]


def test_two_alike_are_told_at_the_second() -> None:
    notices = suspicions('cron: "0 9 * * *", text: hi', "every: 1h, text: hi", 'cron: "00 9 * * 0-6", text: hi')
    assert notices == ["7:3: r2 has the schedule, target and message of r0 on line 5: both will fire"]


def test_a_notice_has_its_place() -> None:
    found = reminders.suspicions(parse(HEAD + "  a:\n    every: 1m\n    prompt: hi\n"), NOW)
    assert found == [Notice(4, 3, "a runs a model 1,440 times a day", "f")]
