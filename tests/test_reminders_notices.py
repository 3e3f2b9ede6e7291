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
    return [f"{notice.line}: {notice.message}" for notice in found]


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
        "every: 30m, text: hi, mark_late: 1m",
        "every: 1h, text: hi, mark_late: never",
        "every: 1h, text: hi, gate: date",
        "every: 1h, text: hi, to: 'telegram:1', alert: 'telegram:2'",
        "every: 1h, text: hi, alert: none",
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
        (
            'every: 1h, command: ",x", gate: date',
            "has a gate before a command: it decides whether the command runs, which gets none of its output",
        ),
        (
            "every: 1h, text: hi, to: 'telegram:1', alert: 'telegram:1'",
            "has an alert to its own chat, telegram:1: what keeps its messages from arriving there keeps the alert, too",
        ),
    ],
)
def test_something_is_suspicious_about(body: str, expected: str) -> None:
    assert suspicions(body) == [f"5: r0 {expected}"]


def test_both_kinds_of_days_are_spelled_out() -> None:
    (notice,) = suspicions('cron: "0 9 13 * fri", text: hi')
    assert notice.startswith("5: r0 restricts both day of month and day of week: it fires at 09:00")
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
    prefix = f"5: r0 meets a change of clocks: in {zone}, "
    assert suspicions(f"{schedule}, text: hi", zone=zone) == [prefix + text for text in expected]


def test_two_alike_are_told_at_the_second() -> None:
    notices = suspicions('cron: "0 9 * * *", text: hi', "every: 1h, text: hi", 'cron: "00 9 * * 0-6", text: hi')
    assert notices == ["7: r2 has the schedule, target and message of r0 on line 5: both will fire"]


def test_a_notice_has_its_place() -> None:
    found = reminders.suspicions(parse(HEAD + "  a:\n    every: 1m\n    prompt: hi\n"), NOW)
    assert found == [Notice(5, 12, "a runs a model 1,440 times a day", "f")]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            'text: hi, to: "telegram:-100", context: {thread_id: "43"}',
            "has thread_id in its context, which the channel telegram ignores: Bub's Telegram channel can't send to a topic, "
            "so the message goes to the group itself",
        ),
        (
            'prompt: hi, to: "discord:42", context: {thread_id: "43"}',
            "has thread_id in its context, which the channel discord ignores: a thread has an id of its own, "
            "to: discord:THREAD_ID",
        ),
        (
            'text: hi, to: "slack:C1", context: {thread_id: "1.2"}',
            "has thread_id in its context, which the channel slack ignores: a thread is reached by thread_ts, "
            "or to: slack:CHANNEL:THREAD_TS",
        ),
        (
            'text: hi, to: "qq:c2c:1", context: {topic: a}',
            "has topic in its context, which the channel qq ignores: qq has no threads or topics that can be reached",
        ),
        (
            'text: hi, to: "feishu:oc_1", context: {parse_mode: html}',
            "has parse_mode in its context, which the channel feishu ignores",
        ),
    ],
)
def test_a_key_of_the_context_that_a_known_channel_ignores_is_named(body: str, expected: str) -> None:
    assert suspicions(f'cron: "0 9 * * *", {body}') == [f"5: r0 {expected}"]


@pytest.mark.parametrize(
    "body",
    [
        'text: hi, to: "slack:C1", context: {thread_ts: "1.2"}',
        'text: hi, to: "mychat:1", context: {thread_id: "43"}',  # nobody knows what that channel does
        'prompt: hi, to: "telegram:1", context: {customer: ACME}',  # the model sees it
        'text: hi, to: "telegram:1"',
    ],
)
def test_a_context_that_may_be_meant_is_not_suspicious(body: str) -> None:
    assert suspicions(f'cron: "0 9 * * *", {body}') == []


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("text: Review PR #42 and deploy", 'ends before \'#42 and deploy\', which YAML takes for a comment; put the text in quotes: "Review PR #42 and deploy"'),
        ("prompt: Look at\n      issue #7", 'ends before \'#7\', which YAML takes for a comment; put the prompt in quotes: "Look at issue #7"'),
        ("text: Time for your pills. # no model", None),
        ("text: 'Review PR #42'  #later", None),
    ],
)  # fmt: skip
def test_a_message_that_yaml_cut(lines: str, expected: str | None) -> None:
    found = reminders.suspicions(parse(HEAD + f"  a:\n    every: 30m\n    {lines}\n"), NOW)
    assert found == ([] if expected is None else [Notice(6, 4 + len(lines.split(":")[0]) + 3, f"a {expected}", "f")])


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("*/90 * * * *", "has */90 as minute: it starts over each hour, so it means 0 alone; for an even distance write every: 90m"),
        ("*/7 * * * *", "has */7 as minute: it starts over each hour, so the last one and the next 0 are not 7 apart; for an even distance write every: 7m"),
        ("0 */13 * * *", "has */13 as hour: it starts over each day, so the last one and the next 0 are not 13 apart; for an even distance write every: 13h"),
        ("0 9 */2 * *", "has */2 as day of month: it starts over each month, so the last one and the next 1 are not 2 apart; for an even distance write every: 2d with start:"),
        ("0 9 7/2 * *", "has 7/2 as day of month, which means 7-31/2: 7, 9, 11, 13, ..."),
        ("0/15 9 * * *", "has 0/15 as minute, which means 0-59/15: 0, 15, 30, 45"),
        ("* 9 * * *", "fires 60 times, each minute from 09:00 to 09:59; for once write 0 9 ..."),
        ("0 9 31 * *", "has 31 as day of month, so it doesn't fire in February, April, June, September, November; the last day of a month is L"),
        ("0 9 29 2 *", "has 29 as day of month, so except in leap years, it doesn't fire in February; the last day of a month is L"),
        ("*/5 */2 * * *", None),
        ("0 9 28,L * *", None),
        ("0 9 1-31 * *", None),
        ("0 9 31 1,3 *", None),
        ("H/7 9 * * *", None),
        ("0 9-17/3 * * *", None),
    ],
)  # fmt: skip
def test_crons_that_rarely_mean_what_they_say(cron: str, expected: str | None) -> None:
    assert suspicions(f'cron: "{cron}", text: hi') == ([] if expected is None else [f"5: r0 {expected}"])


def test_a_prompt_for_one_hour_runs_a_model_60_times() -> None:
    assert suspicions('cron: "* 9 * * *", prompt: hi') == [
        "5: r0 runs a model 60 times, each minute from 09:00 to 09:59; for once write 0 9 ..."
    ]


def test_a_grace_below_a_minute() -> None:
    expected = "5: r0 is missed if the tick comes more than 1 s late; write a grace of 1m or more"
    assert suspicions("every: 1h, text: hi, grace: 1s") == [expected]
    assert suspicions("every: 1h, text: hi, grace: 1m") == []


@pytest.mark.parametrize(
    ("zone", "words"),
    [
        (
            "EST",
            "has a fixed zone: EST has no summer time; for the clocks of a place write its zone, such as America/New_York",
        ),
        ("Etc/GMT+8", "has a fixed zone: Etc/GMT+8 is 8 hours behind UTC: the signs of these names are inverted"),
        ("Etc/GMT-1", "has a fixed zone: Etc/GMT-1 is 1 hour ahead of UTC: the signs of these names are inverted"),
    ],
)
def test_zones_that_mean_something_else_than_many_think(zone: str, words: str) -> None:
    assert suspicions('cron: "0 9 * * *", text: hi', zone=zone) == [f"3: r0 {words}"]


def test_a_zone_of_the_defaults_is_told_once() -> None:
    assert len(suspicions('cron: "0 9 * * *", text: a', 'cron: "1 9 * * *", text: b', zone="EST")) == 1
