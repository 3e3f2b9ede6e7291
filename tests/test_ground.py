"""When the ground moves: zone data, the machine's zone and the clock change under the reminders, and no firing is lost."""

from __future__ import annotations

import shutil
import time
import zoneinfo
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fake_gateway import Place, at, firing
from ledger_kit import put
from zone_kit import install, zone_data

from bub_cron.schedule import (
    count_fire_times,
    fire_times,
    latest_fire_times,
    next_fire_time,
    parse_cron,
    parse_every,
    zones,
)
from bub_cron.schedule.zones import ChangedZone, Zone
from bub_cron.trigger import keeping, recording
from bub_cron.trigger import tick as ticks
from bub_cron.trigger.ledger import Ledger

MINUTE, HOUR, DAY, YEAR = 60, 3600, 86400, 365 * 86400
NOON = at("2026-11-23T12:00:00")
BEIRUT = "Asia/Beirut"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "bub")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    """A zone database of the test's own, before the machine's."""
    directory = tmp_path / "zoneinfo"
    directory.mkdir()
    zoneinfo.reset_tzpath([str(directory), *zoneinfo.TZPATH])
    yield directory
    zoneinfo.reset_tzpath()
    zones.use({})


def file(*entries: str, zone: str | None = None) -> str:
    defaults = "defaults: {to: 'telegram:1'" + (f", timezone: {zone}" if zone else "") + "}"
    return "\n".join([defaults, "reminders:", *(f"  {entry}" for entry in entries), ""])


def entry(name: str, schedule: str, *more: str) -> str:
    return f"{name}: {{{', '.join([schedule, 'text: hi', *more])}}}"


def begin(place: Place, text: str, now: int) -> None:
    place.write(text, now)
    assert place.tick(now) == (0, "")
    assert place.states() == {}


def every_minute(place: Place, start: int, end: int, step: int = MINUTE) -> list[str]:
    """Tick from start to end, both included, with a gateway that takes all; return what was submitted, in order."""
    with place.gateway() as gateway:
        gateway.knows_all = True
        for now in range(start, end + 1, step):
            status, said = place.tick(now)
            assert status == 0, said
    return gateway.submitted


# --- The zone rules change


def test_new_rules_that_are_installed_before_they_come_into_force(place: Place, database: Path) -> None:
    """Beirut, March 2023: the day before, the change was put off by four days."""
    old = zone_data(2 * HOUR, (at("2023-03-25T22:00:00"), 3 * HOUR))
    new = zone_data(2 * HOUR, (at("2023-03-29T22:00:00"), 3 * HOUR))
    install(database, Asia__Beirut=old)
    begin(place, file(entry("pills", "cron: 0 9 * * *"), zone=BEIRUT), at("2023-03-24T00:00:00"))
    submitted = every_minute(place, at("2023-03-24T00:30:00"), at("2023-03-25T12:00:00"), 30 * MINUTE)
    install(database, Asia__Beirut=new)
    submitted += every_minute(place, at("2023-03-25T12:30:00"), at("2023-03-31T12:00:00"), 30 * MINUTE)
    expected = [f"2023-03-{day}T{'06' if day >= 30 else '07'}:00:00" for day in range(24, 32)]
    assert submitted == [firing("pills", instant) for instant in expected]
    assert set(place.states()) == set(submitted)


def test_new_rules_move_what_is_far_away(place: Place, database: Path) -> None:
    """Amman, October 2022: summer time was to end, and stayed."""
    install(database, Asia__Amman=zone_data(3 * HOUR, (at("2022-10-27T22:00:00"), 2 * HOUR)))
    text = file(entry("rent", "cron: 0 9 1 * *"), entry("once", "at: 2022-11-01 09:00"), zone="Asia/Amman")
    begin(place, text, at("2022-10-20T00:00:00"))
    install(database, Asia__Amman=zone_data(3 * HOUR))
    submitted = every_minute(place, at("2022-10-20T01:00:00"), at("2022-11-02T00:00:00"), HOUR)
    assert submitted == [firing("once", "2022-11-01T06:00:00"), firing("rent", "2022-11-01T06:00:00")]


def test_new_rules_are_no_edit(place: Place, database: Path) -> None:
    install(database, Asia__Amman=zone_data(0))
    begin(place, file(entry("a", "cron: 0 12 * * *"), entry("b", "at: 2026-11-23 12:00"), zone="Asia/Amman"), NOON - 30)
    assert place.tick(NOON)[0] == 69
    install(database, Asia__Amman=zone_data(0, (NOON + 30, HOUR)))
    with place.gateway() as gateway:
        assert place.tick(NOON + MINUTE) == (0, "")
    assert len(gateway.taken) == 2


def test_data_that_is_the_same_in_another_file_changes_nothing(place: Place, database: Path) -> None:
    install(database, Asia__Amman=zone_data(0))
    begin(place, file(entry("a", "every: 1m"), entry("b", "cron: 0 13 * * *"), zone="Asia/Amman"), NOON - 30)
    before = place.select("SELECT * FROM reminders")
    install(database, Asia__Amman=zone_data(0))
    assert place.tick(NOON - 20) == (0, "")
    assert place.select("SELECT * FROM reminders") == before


JUMPS: dict[str, tuple[str, list[str], dict[int, list[str]]]] = {
    # name: (schedule, its fire times before the jump at 12:30 UTC, those from then on), the wall clock shows UTC before
    "fixed, jumped over": ("cron: 0 13 * * *", [], {HOUR: ["12:30"], -HOUR: ["14:00"], 3 * HOUR: []}),
    "fixed, just before": ("cron: 29 12 * * *", ["12:29"], {HOUR: [], -HOUR: [], 3 * HOUR: []}),
    "fixed, at the jump": ("cron: 30 12 * * *", [], {HOUR: ["12:30"], -HOUR: ["13:30"], 3 * HOUR: []}),
    "fixed, the last minute of it": ("cron: 29 13 * * *", [], {HOUR: ["12:30"], -HOUR: ["14:29"], 3 * HOUR: []}),
    "fixed, after it": ("cron: 45 13 * * *", [], {HOUR: ["12:45"], -HOUR: ["14:45"], 3 * HOUR: []}),
    "fixed, twice in it": ("cron: '0,15 13 * * *'", [], {HOUR: ["12:30"], -HOUR: ["14:00", "14:15"], 3 * HOUR: []}),
    "fixed, repeated": ("cron: 0 12 * * *", ["12:00"], {HOUR: [], -HOUR: [], 3 * HOUR: []}),
    "follows the clock": ("cron: '*/20 * * * *'", ["12:00", "12:20"],
                          {HOUR: ["12:40", "13:00"], -HOUR: ["12:40", "13:00"], 3 * HOUR: ["12:40", "13:00"]}),
    "elapsed time": ("every: 45m", ["12:00"], {HOUR: ["12:45"], -HOUR: ["12:45"], 3 * HOUR: ["12:45"]}),
    "at, jumped over": ("at: 2026-11-23 13:10", [], {HOUR: ["12:30"], -HOUR: ["14:10"], 3 * HOUR: ["12:30"]}),
    "at, repeated": ("at: 2026-11-23 12:10", ["12:10"], {HOUR: [], -HOUR: [], 3 * HOUR: []}),
}  # fmt: skip


@pytest.mark.parametrize("shift", [HOUR, -HOUR, 3 * HOUR])
@pytest.mark.parametrize("kind", JUMPS)
@pytest.mark.parametrize("way", ["data", "machine"])
def test_the_wall_clock_jumps_at_the_tick_that_sees_the_change(
    place: Place, database: Path, monkeypatch: pytest.MonkeyPatch, kind: str, shift: int, way: str
) -> None:
    schedule, before, after = JUMPS[kind]
    install(database, Old__Zone=zone_data(0), New__Zone=zone_data(shift))
    monkeypatch.setenv("TZ", "Old/Zone")
    text = file(entry("a", schedule), zone="Old/Zone" if way == "data" else None)
    begin(place, text, NOON - 30)
    assert every_minute(place, NOON, NOON + 29 * MINUTE, 29 * MINUTE) == [
        firing("a", f"2026-11-23T{when}:00") for when in before
    ]
    if way == "data":
        install(database, Old__Zone=zone_data(shift))
    else:
        monkeypatch.setenv("TZ", "New/Zone")
        place.tick(NOON + 29 * MINUTE + 30)  # the first of two that have it
    found = every_minute(place, NOON + 30 * MINUTE, NOON + 3 * HOUR, 5 * MINUTE)
    end = {"cron: '*/20 * * * *'": "13:00", "every: 45m": "12:45"}.get(schedule, "14:59")
    expected = [firing("a", f"2026-11-23T{when}:00") for when in after[shift]]
    assert [one for one in found if one <= firing("a", f"2026-11-23T{end}:00")] == expected
    assert Counter(found).most_common(1) in ([], [(found[0], 1)] if found else [])


def test_until_the_tick_that_sees_it_the_old_rules_hold_also_over_downtime(place: Place, database: Path) -> None:
    install(database, Some__Zone=zone_data(0))
    begin(place, file(entry("a", "cron: 0 9 * * *", "catch_up: all", "grace: 30d"), zone="Some/Zone"), NOON - 30)
    install(database, Some__Zone=zone_data(0, (NOON, 2 * HOUR)))
    with place.gateway() as gateway:
        assert place.tick(NOON + 3 * DAY) == (0, "")
        gateway.knows_all = True
        assert place.tick(NOON + 4 * DAY) == (0, "")
    assert gateway.taken == [
        *(firing("a", f"2026-11-{day}T09:00:00") for day in (24, 25, 26)), firing("a", "2026-11-27T07:00:00"),
    ]  # fmt: skip


def test_a_reminder_of_a_broken_file_goes_by_the_new_rules_as_well(place: Place, database: Path) -> None:
    install(database, Some__Zone=zone_data(0))
    begin(place, file(entry("a", "cron: 0 14 * * *"), zone="Some/Zone"), NOON - 30)
    install(database, Some__Zone=zone_data(HOUR))
    place.write("reminders: [", NOON)
    with place.gateway() as gateway:
        for minute in range(70):
            assert place.tick(NOON + minute * MINUTE)[0] == 65
    assert gateway.taken == [firing("a", "2026-11-23T13:00:00")]


def test_a_zone_that_has_gone_from_the_machine_goes_on_by_the_data_that_was_kept(place: Place, database: Path) -> None:
    install(database, Some__Zone=zone_data(HOUR))
    begin(place, file(entry("a", "cron: 0 13 * * *"), zone="Some/Zone"), NOON - 30)
    shutil.rmtree(database / "Some")
    with place.gateway() as gateway:
        status, said = place.tick(NOON)
    assert (status, "Some/Zone" in said) == (65, True)
    assert gateway.taken == [firing("a", "2026-11-23T12:00:00")]


def test_a_change_and_the_calendar_itself_agree() -> None:
    """A zone whose rules change at an instant is as one that always had that change."""
    old, new = Zone(zone_data(HOUR)), Zone(zone_data(3 * HOUR, (NOON + 9 * DAY, HOUR)))
    changed = ChangedZone(old, new, NOON)
    whole = Zone(zone_data(HOUR, (NOON, 3 * HOUR), (NOON + 9 * DAY, HOUR)))
    for text in ("0 9 * * *", "*/25 * * * *", "30 13,14 * * *", "5 0-23 * * *"):
        schedule = parse_cron(text, "UTC", "a")
        found = []
        for zone in (changed, whole):
            with zones.standing_for("UTC", zone):
                found.append([
                    [*fire_times(schedule, begin, begin + 3 * DAY)]
                    for begin in range(NOON - 3 * DAY, NOON + 12 * DAY, DAY // 2)
                ])  # fmt: skip
        assert found[0] == found[1]


# --- The machine's zone


def test_a_tick_by_hand_in_a_shell_of_another_zone_changes_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    begin(place, file(entry("a", "cron: 0 13 * * *"), entry("b", "cron: 2 13 * * *")), NOON - 30)
    assert place.tick(NOON)[0] == 69  # due, and no gateway
    monkeypatch.setenv("TZ", "America/New_York")
    assert place.tick(NOON + 1)[0] == 69
    assert place.select("SELECT tz FROM tick") == [("Europe/Berlin",)]
    monkeypatch.setenv("TZ", "Europe/Berlin")
    assert every_minute(place, NOON + MINUTE, NOON + 5 * MINUTE) == [
        firing("a", "2026-11-23T12:00:00"), firing("b", "2026-11-23T12:02:00"),
    ]  # fmt: skip


def test_two_that_take_turns_go_by_the_first_ones_zone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    begin(place, file(entry("a", "cron: 0 14 * * *")), NOON - 30)
    with place.gateway() as gateway:
        for minute in range(120):
            monkeypatch.setenv("TZ", ["America/New_York", "Europe/Berlin"][minute % 2])
            assert place.tick(NOON + minute * MINUTE) == (0, "")
    assert gateway.taken == [firing("a", "2026-11-23T13:00:00")]


def test_what_is_due_stays_due_when_the_machine_moves(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    begin(place, file(entry("a", "cron: 0 13 * * *")), NOON - 30)
    assert place.tick(NOON)[0] == 69
    monkeypatch.setenv("TZ", "America/New_York")
    for second in (30, 60, 90):
        assert place.tick(NOON + second)[0] == 69
    assert place.select("SELECT tz FROM tick") == [("America/New_York",)]
    with place.gateway() as gateway:
        assert place.tick(NOON + 2 * MINUTE) == (0, "")
    assert gateway.taken == [firing("a", "2026-11-23T12:00:00")]


def test_a_zone_by_another_of_its_names_is_no_edit(place: Place) -> None:
    begin(place, file(entry("a", "cron: 0 12 * * *"), entry("b", "at: 2026-11-23 12:00"), zone="Etc/UTC"), NOON - 30)
    assert place.tick(NOON)[0] == 69
    place.write(file(entry("a", "cron: 0 12 * * *"), entry("b", "at: 2026-11-23 12:00"), zone="UTC"), NOON + 10)
    with place.gateway() as gateway:
        assert place.tick(NOON + MINUTE) == (0, "")
    assert len(gateway.taken) == 2


def test_another_zone_in_the_file_is_an_edit(place: Place) -> None:
    begin(place, file(entry("a", "cron: 0 12 * * *"), zone="UTC"), NOON - 30)
    assert place.tick(NOON)[0] == 69
    place.write(file(entry("a", "cron: 0 12 * * *"), zone="Europe/London"), NOON + 10)
    assert place.tick(NOON + MINUTE) == (0, "")
    assert place.reason(firing("a", "2026-11-23T12:00:00")) == "edited"


def test_etc_timezone_is_looked_at_where_localtime_is_a_plain_file(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "localtime").write_bytes(b"")
    monkeypatch.setattr(ticks, "ROOT", f"{tmp_path}/")
    monkeypatch.delenv("TZ", raising=False)
    (tmp_path / "etc" / "timezone").write_text("Europe/Berlin\n")
    begin(place, file(entry("a", "cron: 0 15 * * *")), NOON - 30)
    (tmp_path / "etc" / "timezone").write_text("Europe/London\n")
    assert every_minute(place, NOON, NOON + 4 * HOUR) == [firing("a", "2026-11-23T15:00:00")]


# --- The clock


def test_a_clock_that_is_a_little_ahead_at_boot(place: Place) -> None:
    """It boots at 08:00 showing 10:00, and is right a minute later."""
    eight = at("2026-11-23T08:00:00")
    begin(
        place, file(entry("standup", "cron: 30 9 * * *"), entry("pills", "cron: 30 8 * * *"), zone="UTC"), eight - HOUR
    )
    with place.gateway() as gateway:
        assert place.tick(eight + 2 * HOUR) == (0, "")
        assert gateway.submitted == [firing("standup", "2026-11-23T09:30:00")]
        status, said = place.tick(eight + MINUTE)
        assert (status, "the clock is behind the last tick" in said) == (0, True)
        # What was submitted stays; what was missed before its time isn't there any more.
        assert place.states() == {firing("standup", "2026-11-23T09:30:00"): "accepted"}
        gateway.knows_all = True
        for minute in range(2, 120):
            assert place.tick(eight + minute * MINUTE) == (0, "")
    assert gateway.taken == [firing("standup", "2026-11-23T09:30:00"), firing("pills", "2026-11-23T08:30:00")]


@pytest.mark.parametrize("before", [True, False])
def test_a_clock_that_is_a_day_ahead_at_boot(place: Place, before: bool) -> None:
    """`before`: a tick had run by the right clock."""
    text = file(entry("dentist", "at: 2026-11-23 11:30", "grace: 24h"), zone="UTC")
    place.write(text, NOON - 2 * HOUR)
    if before:
        assert place.tick(NOON - HOUR) == (0, "")
    assert place.tick(NOON + DAY + 30 * MINUTE)[0] == 0
    with place.gateway() as gateway:
        assert place.tick(NOON + MINUTE)[0] == 0
    assert gateway.taken == [firing("dentist", "2026-11-23T11:30:00")]


def test_nothing_is_submitted_before_its_fire_time(place: Place) -> None:
    begin(place, file(entry("a", "every: 1h", "catch_up: all", "grace: 30d"), zone="UTC"), NOON - 30)
    assert place.tick(NOON + 25 * HOUR)[0] == 69
    with place.gateway() as gateway:
        assert place.tick(NOON + MINUTE)[0] == 0
        assert gateway.submitted == [firing("a", "2026-11-23T12:00:00")]
        assert set(place.states()) == set(gateway.submitted)
        gateway.knows_all = True
        assert place.tick(NOON + HOUR)[0] == 0
    assert gateway.taken == [firing("a", "2026-11-23T12:00:00"), firing("a", "2026-11-23T13:00:00")]


def test_also_where_no_tick_tells_that_the_clock_was_ahead(place: Place) -> None:
    """All ticks until now had the wrong clock, so that nobody knows which one is right."""
    begin(place, file(entry("a", "every: 1h", "grace: 30d"), zone="UTC"), NOON + 25 * HOUR - MINUTE)
    assert place.tick(NOON + 25 * HOUR)[0] == 69
    with place.gateway() as gateway:
        assert place.tick(NOON - 30)[0] == 0
        assert gateway.submitted == []
        for minute in range(61):
            assert place.tick(NOON + minute * MINUTE)[0] == 0
    assert gateway.submitted == [firing("a", "2026-11-23T12:00:00"), firing("a", "2026-11-23T13:00:00")]


def test_a_clock_that_was_300_days_ahead_leaves_nothing_that_was_not_submitted(place: Place) -> None:
    begin(
        place,
        file(entry("a", "every: 30m"), entry("b", "every: 1h", "catch_up: all", "grace: 10h"), zone="UTC"),
        NOON - 30,
    )
    with place.gateway() as gateway:
        assert place.tick(NOON + 300 * DAY)[0] == 0
        early = list(gateway.submitted)
        assert place.select("SELECT max(count) > 1000 FROM firings") == [(1,)]
        gateway.knows_all = True
        assert place.tick(NOON + MINUTE)[0] == 0
        assert set(place.states()) == {*early, firing("a", "2026-11-23T12:00:00"), firing("b", "2026-11-23T12:00:00")}
        assert place.select("SELECT max(count) FROM firings") == [(1,)]
        for minute in range(2, 62):
            assert place.tick(NOON + minute * MINUTE)[0] == 0
    assert set(gateway.submitted) - set(early) == {
        firing("a", "2026-11-23T12:00:00"), firing("b", "2026-11-23T12:00:00"), firing("a", "2026-11-23T12:30:00"),
        firing("a", "2026-11-23T13:00:00"), firing("b", "2026-11-23T13:00:00"),
    }  # fmt: skip


@pytest.mark.parametrize("first", [True, False])
def test_a_clock_at_1970_costs_little_and_loses_nothing(place: Place, first: bool) -> None:
    """`first`: the very first tick has that clock, as a board without a battery at its first boot."""
    names = [entry(f"r{number}", "cron: '*/5 * * * *'") for number in range(20)]
    text = file(*names, entry("pills", "cron: 0 13 * * *"), zone="Europe/Berlin")
    place.write(text, NOON - HOUR)
    if not first:
        assert every_minute(place, NOON - HOUR + 30, NOON - 10 * MINUTE)
        before = place.select("SELECT * FROM firings ORDER BY id")
    for minute in range(1 if not first else 3):
        assert place.tick(40 + minute * MINUTE)[0] in (0, 69)
    began = time.process_time()
    with place.gateway() as gateway:
        gateway.knows_all = True
        right = NOON - (HOUR if first else 9 * MINUTE)
        assert place.tick(right)[0] == 0
        assert time.process_time() - began < 5  # on a busy machine; it was 4 s for each of the twenty
        for now in range(right + MINUTE, NOON + HOUR, MINUTE):
            assert place.tick(now)[0] == 0
    assert firing("pills", "2026-11-23T12:00:00") in gateway.submitted
    if not first:
        after = place.select("SELECT * FROM firings ORDER BY id")
        assert [row[:12] for row in before] == [row[:12] for row in after if row[0] in {old[0] for old in before}]
        assert place.select("SELECT count(*) FROM firings WHERE count > 1") == [(0,)]
    for number in range(20):
        fired = [one for one in gateway.submitted if one.startswith(f"r{number}@2026-11-23T12")]
        assert len(fired) == 12


def test_the_1970_clock_notes_no_gap_of_half_a_century(place: Place) -> None:
    begin(place, file(entry("a", "every: 1h"), zone="UTC"), NOON - 30)
    for now in (30, 90, NOON + 30, NOON + 90):
        place.tick(now)
    assert place.select("SELECT * FROM gaps") == []


def test_what_was_pruned_does_not_come_back_by_a_clock_that_was_behind(place: Place) -> None:
    begin(
        place,
        file(entry("a", "every: 24h"), entry("b", "at: [2026-11-20 12:00, 2026-12-24 12:00]"), zone="UTC"),
        NOON - 9 * DAY,
    )
    with place.gateway() as gateway:
        gateway.knows_all = True
        for day in range(-8, 1):
            assert place.tick(NOON + day * DAY)[0] == 0
        with closing(Ledger(place.paths.ledger)) as ledger:
            ledger.db.execute("DELETE FROM firings")
        assert place.tick(1000)[0] == 0
        assert place.tick(NOON + DAY)[0] == 0
    assert list(place.states()) == [firing("a", "2026-11-24T00:00:00")]


@pytest.mark.parametrize("leap", [-50 * YEAR, -YEAR, -DAY, -HOUR, -61, 61, HOUR, DAY, YEAR, 50 * YEAR])
def test_a_clock_that_was_wrong_for_one_tick_costs_no_fire_time_and_no_record(
    place: Place, tmp_path: Path, leap: int
) -> None:
    text = file(
        entry("a", "every: 7m", "catch_up: all", "grace: 1h"), entry("b", "cron: 5 12 * * *"),
        entry("c", "at: [2026-11-23 12:20, 2026-11-23 13:01]"), zone="UTC",
    )  # fmt: skip
    twin = Place(tmp_path / "twin")
    for house in (place, twin):
        begin(house, text, NOON - HOUR)
        every_minute(house, NOON - HOUR + MINUTE, NOON)
    place.tick(NOON + MINUTE + leap)
    for house in (place, twin):
        every_minute(house, NOON + MINUTE, NOON + 90 * MINUTE)
    assert place.states().items() >= twin.states().items()
    extra = set(place.states()) - set(twin.states())
    wrong = at("1970-01-01T00:00:00") + max(0, NOON + MINUTE + leap)
    assert all(abs(at(one.partition("@")[2][:19]) - wrong) <= HOUR + DAY for one in extra)


def test_a_clock_ahead_for_one_tick_prunes_nothing(place: Place) -> None:
    begin(place, file(entry("a", "every: 1h"), zone="UTC"), NOON - 30)
    every_minute(place, NOON, NOON + 5 * HOUR, HOUR)
    before = set(place.states())
    with place.gateway() as gateway:
        gateway.knows_all = True
        for now in (NOON + 40 * YEAR, NOON + 5 * HOUR + MINUTE):
            assert place.tick(now)[0] == 0
    assert before <= set(place.states())


@pytest.mark.parametrize(
    ("text", "days"),
    [("", 30), ("7", 7), ("0", 1), ("-3", 30), ("999999999999999", 1_000_000), ("9" * 5000, 1_000_000), ("many", 30),
     ("0000000000030", 30), ("1.5", 30), ("٣", 3)],
)  # fmt: skip
def test_limits_have_bounds(monkeypatch: pytest.MonkeyPatch, text: str, days: int) -> None:
    monkeypatch.setenv("BUB_CRON_KEEP_DAYS", text)
    assert keeping.limit("BUB_CRON_KEEP_DAYS", 30) == days


def test_a_very_long_time_to_keep_is_as_good_as_for_ever(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUB_CRON_KEEP_DAYS", "999999999999999")
    monkeypatch.setenv("BUB_CRON_KEEP_MIB", "999999999999999")
    begin(place, file(entry("a", "every: 24h", "grace: 13h"), zone="UTC"), NOON - 30)
    assert len(every_minute(place, NOON, NOON + 50 * DAY, DAY)) == 50
    assert len(place.states()) == 50


# --- Long downtime


def many(place: Place, count: int, schedule: str, zone: str = "UTC", since: int = NOON) -> None:
    """Put many reminders into a ledger, as a tick at an instant left them."""
    place.write(file(entry("a", "every: 1h"), zone=zone), since - 60)
    assert place.tick(since - 30) == (0, "")
    text = parse_cron(schedule, zone, "a") if " " in schedule else parse_every(int(schedule))
    with closing(Ledger(place.paths.ledger)) as ledger, ledger.transaction():
        for number in range(count):
            put(ledger, name=f"r{number}", schedule=text.encoded, next_at=next_fire_time(text, since), since=since)


def test_the_rows_of_one_tick_are_bounded_and_each_fire_time_is_counted(place: Place) -> None:
    many(place, 100, "300", since=NOON)
    place.tick(NOON + 4 * DAY)
    [(rows, times)] = place.select("SELECT count(*), sum(count) FROM firings WHERE reminder <> 'a'")
    assert times == 100 * 4 * 288
    assert 9_000 < rows <= 10_000 + 100


def test_a_few_that_have_many_leave_those_alone_that_have_few(place: Place) -> None:
    many(place, 40, "60", since=NOON)
    with closing(Ledger(place.paths.ledger)) as ledger, ledger.transaction():
        text = parse_every(HOUR)
        put(ledger, name="hourly", schedule=text.encoded, next_at=NOON + HOUR, since=NOON)
    place.tick(NOON + 2 * DAY)
    assert place.select("SELECT count(*), max(count) FROM firings WHERE reminder = 'hourly'") == [(48, 1)]


def test_a_tick_that_is_killed_in_long_downtime_has_lost_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    many(place, 50, "300", since=NOON)
    monkeypatch.setattr(recording, "_CHUNK_SECONDS", 0.0)
    record: Any = recording._record
    done: list[None] = []

    def dies(*arguments: object) -> None:
        if len(done) == 20:
            raise KeyboardInterrupt
        done.append(None)
        record(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(recording, "_record", dies)
        with pytest.raises(KeyboardInterrupt):
            place.tick(NOON + DAY)
    assert place.select("SELECT count(DISTINCT reminder) FROM firings") == [(20,)]
    place.tick(NOON + DAY + MINUTE)
    counts = place.select("SELECT reminder, sum(count) FROM firings WHERE reminder <> 'a' GROUP BY reminder")
    assert [count for _, count in counts] == [288] * 50


def test_what_there_is_no_time_for_is_left_to_the_next_tick(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    many(place, 50, "300", since=NOON)
    monkeypatch.setattr(recording, "CPU_SECONDS", 0.0)
    for minute in range(60):
        _, said = place.tick(NOON + DAY + minute)
        assert place.select("SELECT last_tick FROM tick") == [(NOON + DAY + minute,)]
        if minute == 0:
            assert "the next tick goes on" in said
    counts = place.select("SELECT reminder, sum(count) FROM firings WHERE reminder <> 'a' GROUP BY reminder")
    assert [count for _, count in counts] == [288] * 50


def test_after_a_year_off_each_tick_is_bounded_in_time_and_they_get_through(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten times the reminders take ten times the ticks' 10 s; here a tick has a fifth of a second."""
    many(place, 300, "*/5 * * * *", "Europe/Berlin")
    monkeypatch.setattr(recording, "CPU_SECONDS", 0.2)
    ticks = 0
    while place.select("SELECT 1 FROM reminders WHERE next_at <= ?", NOON + YEAR):
        began = time.process_time()
        place.tick(NOON + YEAR + ticks)
        ticks += 1
        assert time.process_time() - began < 1.5  # the rest of a tick, and one chunk, on a busy machine
    assert ticks > 1
    [(rows, times)] = place.select("SELECT count(*), sum(count) FROM firings WHERE reminder <> 'a'")
    assert times == 300 * 365 * 288
    assert rows <= ticks * (recording.ROWS_ALL + 300)


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Australia/Lord_Howe"])
@pytest.mark.parametrize(
    "cron", ["* * * * *", "0 9 * * *", "30 2 * * *", "*/7 1-3 * * mon", "0 0 29 2 *", "15 */2 13 * 5", "59 23 L * *"]
)
def test_what_is_counted_is_what_is_walked_through(cron: str, zone: str) -> None:
    schedule = parse_cron(cron, zone, "a")
    for begin, span in ((NOON, 40 * DAY), (NOON + 117 * DAY + 12345, 3 * DAY), (at("2026-03-28T20:00:00"), 9 * HOUR)):
        walked = list(fire_times(schedule, begin, begin + span))
        assert count_fire_times(schedule, begin, begin + span) == len(walked)
        for most in (1, 5, 1000):
            assert latest_fire_times(schedule, begin, begin + span, most) == walked[-most:]


# --- Edits


def test_the_pruned_dates_of_an_at_list_do_not_come_back(place: Place) -> None:
    dates = ["2026-11-23 12:00", "2026-11-23 13:00"]
    begin(place, file(entry("a", f"at: [{', '.join(dates)}]"), zone="UTC"), NOON - 30)
    assert len(every_minute(place, NOON, NOON + 2 * HOUR)) == 2
    with closing(Ledger(place.paths.ledger)) as ledger:
        ledger.db.execute("DELETE FROM firings")
    later = NOON + 90 * DAY
    dates += ["2027-03-01 12:00", "2026-11-24 08:00"]  # the last one is past, and new
    place.write(file(entry("a", f"at: [{', '.join(dates)}]"), zone="UTC"), later)
    assert place.tick(later + 30) == (0, "")
    assert place.states() == {firing("a", "2026-11-24T08:00:00"): "missed"}


@pytest.mark.parametrize("second", [0, 20, 59])
def test_after_an_hour_asleep_an_each_minute_reminder_starts_once(place: Place, second: int) -> None:
    begin(place, file(entry("a", "every: 1m"), zone="UTC"), NOON - HOUR)
    with place.gateway() as gateway:
        assert place.tick(NOON + second) == (0, "")
    assert gateway.taken == [firing("a", "2026-11-23T12:00:00")]


def test_what_came_into_force_is_known_whatever_the_clock_does(place: Place) -> None:
    begin(place, file(entry("a", "every: 10m"), zone="UTC"), NOON - 30)
    with place.gateway() as gateway:
        gateway.knows_all = True
        for now in [NOON + MINUTE, *range(NOON - 2 * HOUR, NOON + 12 * MINUTE, MINUTE)]:
            assert place.tick(now)[0] == 0
    assert gateway.taken == [firing("a", "2026-11-23T12:00:00"), firing("a", "2026-11-23T12:10:00")]
