"""health/status.py: what needs a human is named, in a sentence that says where to look, until it works again."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fake_gateway import Place, busy, firing, silent
from health_kit import NOON, answering, contents, healthy, record

from bub_cron.cli import commands
from bub_cron.health import status, storage
from bub_cron.health.status import DAY, Status, look
from bub_cron.schedule import machine_zone
from bub_cron.trigger import firings
from bub_cron.trigger.ledger import Ledger

MINUTE = 60
type Break = Callable[[Place], None]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("BUB_HOME", str(tmp_path / "bub"))
    return healthy(tmp_path / "bub")


def attention(place: Place, now: int = NOON) -> list[str]:
    return look(place.paths, now).attention


def test_where_all_is_well_nothing_needs_a_human(place: Place) -> None:
    with place.gateway(answering(waiting=3, running=1)):
        found = look(place.paths, NOON)
    assert found.attention == []
    assert found.gateway is not None
    assert (found.gateway["waiting"], found.gateway["running"]) == (3, 1)
    assert (found.last_tick, found.next_tick, found.is_late) == (NOON - MINUTE, NOON, False)
    assert found.next_fire == (NOON + 3600, "pills")
    assert (found.outcomes, found.due, found.accepted, found.gaps) == ({}, 0, 0, [])


def test_a_place_without_anything_has_its_sentences_and_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(tmp_path / "bub")
    monkeypatch.setenv("BUB_HOME", str(place.home))
    gateway, file, tick = attention(place)
    assert "start `bub gateway`" in gateway
    assert "bub-cron init" in file
    assert tick == "no tick has ever run here: `bub-cron install` lets the machine run it"
    assert not place.home.exists()


def no_tick(place: Place) -> None:
    os.unlink(place.paths.ledger)


def late(place: Place) -> None:
    with closing(Ledger(place.paths.ledger)) as ledger:
        ledger.set_last_tick(NOON - 10 * MINUTE, NOON - 10 * MINUTE)


def ahead(place: Place) -> None:
    with closing(Ledger(place.paths.ledger)) as ledger:
        ledger.set_last_tick(NOON + 10 * MINUTE, NOON + 10 * MINUTE)


def broken_file(place: Place) -> None:
    place.write("reminders: {a: {every: 1m, to: 't:1'}, b: {every: 1m, to: 't:1'}}", NOON)


def missing_file(place: Place) -> None:
    os.unlink(place.paths.file)


def damaged_ledger(place: Place) -> None:
    Path(place.paths.ledger).write_bytes(b"")


def put_aside(place: Place) -> None:
    Path(f"{place.paths.ledger}.damaged-2026").touch()


def undelivered(place: Place) -> None:
    place.fill_inbox(
        id="x", reminder="pills", fire_time="2026-11-23T11:00:00Z", state="undelivered", error="no such chat\nat all"
    )


def stuck(place: Place) -> None:
    record(place, NOON - 20 * MINUTE, state=None)


def lost(place: Place) -> None:
    record(place, NOON - 20 * MINUTE, state="accepted")
    place.open_inbox().close()


@pytest.mark.parametrize(
    ("breaks", "sentence"),
    [
        (no_tick, "no tick has ever run here: `bub-cron install`"),
        (late, "no tick has run since 2026-11-23 11:50: see `bub-cron doctor`"),
        (ahead, "the clock is behind the last tick, which was at 2026-11-23 12:10: see `timedatectl`"),
        (broken_file, "reminders.yaml has 2 faults: see `bub-cron check`"),
        (missing_file, "bub-cron init"),
        (damaged_ledger, "is damaged: it is empty: see `bub-cron doctor`"),
        (put_aside, "ledger.db.damaged-2026 is a damaged store that was put aside: remove it once"),
        (undelivered, "pills was not delivered at 2026-11-23 11:00: no such chat; see `bub-cron log pills`"),
        (stuck, "pills@2026-11-23T11:40:00Z is due since 2026-11-23 11:40, and the gateway that answers has not"),
        (lost, "the gateway accepted pills@2026-11-23T11:40:00Z, and its store has no record of it"),
    ],
)
def test_each_trouble_has_just_its_sentence(
    place: Place, breaks: Break, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    breaks(place)
    with place.gateway(answering()):
        [said] = attention(place)
    assert sentence in said
    assert "\n" not in said


def test_an_absent_gateway_a_silent_one_and_one_that_refuses(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    [said] = attention(place)
    assert "start `bub gateway`" in said
    monkeypatch.setattr(status, "PATIENCE", 0.05)
    with place.gateway(silent):
        [said] = attention(place)
    assert "did not answer within 0.05 s" in said
    refusal = {"status": "rejected", "error": "user 7 may not talk to this gateway"}
    with place.gateway(greeting=json.dumps(refusal).encode() + b"\n", refuses=True):
        found = look(place.paths, NOON)
    assert found.refused
    assert found.attention == [
        "the gateway does not talk to this user: user 7 may not talk to this gateway; see `bub-cron doctor`"
    ]


@pytest.mark.parametrize(("now", "expected"), [(NOON + 90, False), (NOON + 91, True)])
def test_a_tick_is_late_well_after_its_minute(place: Place, now: int, expected: bool) -> None:
    assert look(place.paths, now).is_late is expected


def test_what_went_wrong_is_said_until_it_works_again_or_for_a_day(place: Place) -> None:
    undelivered(place)
    with place.gateway(answering()):
        assert len(attention(place)) == 1
        late_enough = NOON - 3600 + DAY + 1
        assert not any("pills" in sentence for sentence in attention(place, late_enough))
        place.fill_inbox(id="y", reminder="pills", fire_time="2026-11-23T11:30:00Z", state="delivered")
        assert attention(place) == []


def test_what_went_wrong_with_a_reminder_that_is_no_more_is_nobodys_concern(place: Place) -> None:
    record(place, NOON - 3600, name="gone")
    with place.gateway(answering()):
        assert attention(place) == []
        broken_file(place)  # then it can't be told
        assert any(sentence.startswith("gone was missed at ") for sentence in attention(place))


@pytest.mark.parametrize(
    "columns",
    [{"state": "skipped", "reason": reason} for reason in ("overlap", "edited")]
    + [{"state": "missed", "reason": "past"}],
)
def test_what_did_not_run_on_purpose_needs_nobody(place: Place, columns: dict[str, str]) -> None:
    place.fill_inbox(id="x", reminder="pills", fire_time="2026-11-23T11:00:00Z", **columns)
    with place.gateway(answering()):
        assert attention(place) == []


def test_a_reason_without_a_sentence_is_said_in_words(place: Place) -> None:
    place.fill_inbox(
        id="x", reminder="pills", fire_time="2026-11-23T11:00:00Z", state="undelivered", reason="no_channel"
    )
    with place.gateway(answering()):
        [said] = attention(place)
    assert ": no such channel in this gateway, or not enabled; see `bub-cron log pills`" in said


@pytest.mark.parametrize(("since", "expected"), [("11:59:01", []), ("11:58:59", ["why"]), ("12:30:00", ["why"])])
def test_a_gateway_that_is_not_ready_needs_a_human_after_a_minute(
    place: Place, since: str, expected: list[str]
) -> None:
    about = {"ready": False, "why": "no channel has\nstarted", "since": f"2026-11-23T{since}Z"}
    with place.gateway(answering(**about)):
        found = look(place.paths, NOON)
    assert found.why_not_ready == "no channel has started"
    why = "the gateway that answers is not ready to start firings: no channel has started; see `bub-cron doctor`"
    assert found.attention == [sentence.replace("why", why) for sentence in expected]


def test_what_is_tried_again_needs_a_human_and_is_shown_with_its_error(place: Place) -> None:
    now_well(place)
    for number in range(7):
        place.fill_inbox(id=f"x-{number}", reminder="pills", state="retrying", error="refused\nagain", accepted_at=NOON)
    with place.gateway(answering()):
        done = run(place)
        found = json.loads(run(place, "--json").output)
    assert done.exit_code == 1
    assert (
        "needs fixing x-6 has not worked yet and is being tried again: refused; see `bub-cron log --id x-6`"
        in done.output
    )
    lines = [line for line in done.output.splitlines() if line.startswith("retrying")]
    assert lines[0] == "retrying     x-6: refused"
    assert lines[5] == "retrying     ... and 2 more like that"
    assert found["retrying"][6] == {"id": "x-0", "error": "refused\nagain"}
    assert found["waiting"] == {"due": 0, "accepted": 7}


def test_the_command_says_that_a_gateway_is_not_ready(place: Place) -> None:
    now_well(place)
    with place.gateway(answering(ready=False, why="no channel has started")):
        done = run(place)
    assert done.exit_code == 1
    assert "idle; not ready: no channel has started (process" in done.output


@pytest.mark.parametrize("word", ["failed", "undelivered", "unknown", "rejected", "missed"])
def test_each_bad_word_is_a_sentence(place: Place, word: str) -> None:
    if word == "rejected":  # that is the ledger's alone
        record(place, NOON - 3600, state=word)
    else:
        place.fill_inbox(id="x", reminder="pills", fire_time="2026-11-23T11:00:00Z", state=word)
    with place.gateway(answering()):
        [said] = attention(place)
    assert said.startswith("pills ")
    assert said.endswith("; see `bub-cron log pills`")


@pytest.mark.parametrize("word", ["delivered", "silent", "ran", "running", "accepted"])
def test_the_other_words_are_none(place: Place, word: str) -> None:
    place.fill_inbox(id="x", reminder="pills", fire_time="2026-11-23T11:00:00Z", state=word, accepted_at=NOON - 60)
    with place.gateway(answering()):
        assert attention(place) == []


def test_of_many_alike_a_few_are_named(place: Place) -> None:
    names = [f"r{number}" for number in range(8)]
    place.write(
        "reminders:\n" + "".join(f"  {name}: {{every: 1h, to: 't:1', text: {name}}}\n" for name in names), NOON - 60
    )
    for name in names:
        record(place, NOON - 3600, name=name)
    with place.gateway(answering()):
        said = attention(place)
    assert len(said) == 6
    assert said[-1] == "... and 3 more like that"


def test_what_is_due_and_not_for_long_waits_in_peace(place: Place) -> None:
    record(place, NOON - 60, state=None)
    with place.gateway(answering()):
        found = look(place.paths, NOON)
    assert (found.due, found.attention) == (1, [])


def test_a_gateway_that_stays_busy_is_told(place: Place) -> None:
    record(place, NOON - 20 * MINUTE, state=None, name="other")
    with place.gateway(busy):
        assert place.tick(NOON - 30)[0] == 69  # no later one is due that would start in its place
    with place.gateway(answering()):
        [said] = attention(place)
    assert "is due since" in said


def test_what_is_accepted_counts_where_the_gateways_store_has_it(place: Place) -> None:
    place.fill_inbox(id=firing("pills", "2026-11-23T11:00:00"), reminder="pills", accepted_at=NOON - 60)
    record(place, NOON - 30 * MINUTE, state="accepted")  # and no store of a gateway knows of it
    with place.gateway(answering()):
        found = look(place.paths, NOON)
    assert (found.due, found.accepted) == (0, 1)


def test_a_gateway_whose_store_is_elsewhere_has_lost_nothing(place: Place) -> None:
    record(place, NOON - 20 * MINUTE, state="accepted")
    with place.gateway(answering()):
        assert attention(place) == []


def test_the_outcomes_are_those_of_a_day_with_each_fire_time_that_a_row_stands_for(place: Place) -> None:
    record(place, NOON - DAY - 1, name="before")
    record(place, NOON - DAY, name="just")
    with closing(Ledger(place.paths.ledger)) as ledger, ledger.transaction():
        firings.record_crowd(ledger, "often", NOON - 1500 * 30, NOON - 30, 1500, "{}", NOON)
    place.fill_inbox(id="poke-1", state="delivered", accepted_at=NOON - 5)
    assert look(place.paths, NOON).outcomes == {"delivered": 1, "missed": 1501}


def test_what_gates_skipped_in_a_day(place: Place) -> None:
    for number, reason in enumerate(["gate", "unchanged", "gate", "overlap", None]):
        state = "delivered" if reason is None else "skipped"
        place.fill_inbox(
            id=f"mail-{number}", reminder="mail", state=state, reason=reason, accepted_at=NOON - 60 - number
        )
    place.fill_inbox(id="before", reminder="mail", state="skipped", reason="gate", accepted_at=NOON - DAY - 60)
    place.fill_inbox(id="pills", reminder="pills", state="delivered", accepted_at=NOON - 60)
    assert look(place.paths, NOON).as_json()["gated"] == {"mail": {"skipped": 3, "firings": 5}}


def test_the_command_shows_what_gates_skipped(place: Place) -> None:
    place.fill_inbox(id="mail", reminder="mail", state="skipped", reason="gate", accepted_at=int(time.time()) - 60)
    assert "gates        mail: skipped 1 of 1 by its gate\n" in run(place).output


def test_the_gaps_of_a_day(place: Place) -> None:
    with closing(Ledger(place.paths.ledger)) as ledger:
        for began in (NOON - 2 * DAY, NOON - 7200, NOON - 3600):
            ledger.note_gap(began, began + 600)
    found = look(place.paths, NOON)
    assert found.gaps == [(NOON - 3600, NOON - 3000), (NOON - 7200, NOON - 6600)]
    assert found.as_json()["gaps"][0] == {"from": "2026-11-23T11:00:00Z", "until": "2026-11-23T11:10:00Z"}


def test_a_disk_that_takes_nothing_needs_a_human(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(storage, "_write_nothing", full)
    with place.gateway(answering()):
        [said] = attention(place)
    assert said.startswith(f"nothing can be written in {place.paths.state}: No space left on device: df -h ")


def test_a_home_that_all_may_write_needs_a_human(place: Place) -> None:
    place.home.chmod(0o777)
    with place.gateway(answering()):
        [said] = attention(place)
    assert said.startswith(f"every tick is refused: others may write in {place.home} (mode 0777); run: chmod go-w ")


def test_a_gateway_without_any_chat_needs_a_human(place: Place) -> None:
    with place.gateway(answering(channels=[])):
        [said] = attention(place)
    assert said.startswith("the gateway has no chat enabled, so no reminder can be delivered: `bub onboard` ")


def test_of_another_users_places_one_thing_is_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "owner_of", lambda _: 1)
    [said] = attention(place)
    assert "is user daemon's, and this is user " in said
    assert said.endswith(" status`")
    assert "run `sudo -u daemon env BUB_HOME=" in said
    [line] = run(place).output.splitlines()
    assert line == f"needs fixing {said}", "nothing is said of what can't be seen"


def test_looking_changes_nothing(place: Place) -> None:
    undelivered(place)
    before = contents(place)
    with place.gateway(answering()):
        look(place.paths, NOON)
    assert contents(place) == before


# --- The command


def run(place: Place, *arguments: str) -> Any:
    environment = {"BUB_HOME": str(place.home), "BUB_CRON_FILE": "", "BUB_CRON_STATE": "", "BUB_CRON_SOCKET": ""}
    return CliRunner().invoke(commands, ["status", *arguments], env=environment)


def now_well(place: Place) -> None:
    with closing(Ledger(place.paths.ledger)) as ledger:
        ledger.set_last_tick(int(time.time()), int(time.time()))


def test_the_command_shows_each_part_and_exits_0_or_1(place: Place) -> None:
    now_well(place)
    with place.gateway(answering()):
        done = run(place)
    assert done.exit_code == 0, done.output
    gateway, trigger, reminders, waiting, day = done.output.splitlines()
    assert gateway.startswith("gateway      listens since 2026-11-23 ")
    assert "for telegram; idle (process 4242, " in gateway
    assert trigger.startswith("trigger      the last tick was ")
    assert reminders.startswith("reminders    1; the next is pills, at ")
    assert f" ({machine_zone()}), in " in reminders
    assert (waiting, day) == ("waiting      nothing", "24 hours     nothing fired")
    done = run(place)
    assert done.exit_code == 1
    assert done.output.startswith("gateway      does not answer\n")
    assert done.output.splitlines()[-1].startswith("needs fixing no gateway listens at ")


def test_where_no_version_was_ever_good_none_is_said_to_be_in_force(tmp_path: Path) -> None:
    place = Place(tmp_path / "bub")
    broken_file(place)
    assert "\nreminders    the file can't be used, and there is no earlier good version\n" in run(place).output


def test_a_file_that_is_not_there_yet_is_not_called_unusable(tmp_path: Path) -> None:
    assert "\nreminders    there is no file yet\n" in run(Place(tmp_path / "bub")).output


def test_what_was_fired_within_this_second_counts(place: Place) -> None:
    place.fill_inbox(
        id="fire-pills-1", reminder="pills", state="undelivered", error="no such chat", accepted_at=NOON + 0.4
    )
    with place.gateway(answering()):
        found = status.look(place.paths, NOON)
    assert found.outcomes == {"undelivered": 1}
    assert [one.id for one in found.bad] == ["fire-pills-1"]


def test_the_commands_json_is_one_object_with_the_same(place: Place) -> None:
    now_well(place)
    with place.gateway(answering()):
        done = run(place, "--json")
    found = json.loads(done.output)
    assert (done.exit_code, found["ok"], found["attention"]) == (0, True, [])
    assert found["gateway"]["listening"] is True
    assert found["gateway"]["since"] == "2026-11-23T09:00:00Z"
    assert found["trigger"]["late"] is False
    assert (found["reminders"], found["next"]["reminder"]) == (1, "pills")
    damaged_ledger(place)
    done = run(place, "--json")
    found = json.loads(done.output)
    assert (done.exit_code, found["ok"]) == (1, False)
    assert (found["gateway"]["listening"], found["trigger"]["last_tick"]) == (False, None)


@pytest.mark.parametrize("breaks", [damaged_ledger, broken_file, no_tick, ahead, late, put_aside])
def test_the_command_survives_each_trouble(place: Place, breaks: Break) -> None:
    now_well(place)
    breaks(place)
    done = run(place)
    assert done.exit_code == 1
    assert not isinstance(done.exception, Exception) or isinstance(done.exception, SystemExit)
    if breaks is damaged_ledger:
        assert "trigger      when the last tick ran can't be read\n" in done.output
    if breaks is broken_file:
        assert "a file can't be used; 1 reminder stays in force, as last read without a fault" in done.output


def test_many_gaps_are_summed_up(place: Place) -> None:
    now = int(time.time())
    now_well(place)
    with closing(Ledger(place.paths.ledger)) as ledger:
        for number in range(10):
            ledger.note_gap(now - 7200 + 600 * number, now - 7200 + 600 * number + 300)
    [line] = [line for line in run(place).output.splitlines() if line.startswith("no tick")]
    assert line.count("(5 min)") == 3
    assert line.endswith("and 7 times before that, 35 min in all")


def test_what_the_gateway_says_reaches_the_terminal_only_escaped(place: Place) -> None:
    now_well(place)
    with place.gateway(answering(channels=["a\x1b[31m\u202e"], since="\x1b]0;x\x07", version="\x9b1m")):
        done = run(place)
    assert not any(character in done.output for character in "\x1b\x07\x9b\u202e")


def test_the_error_of_an_inbox_that_cannot_be_read_hides_nothing_else(place: Place) -> None:
    Path(place.paths.inbox).write_bytes(b"nonsense" * 4096)
    with place.gateway(answering()):
        found: Status = look(place.paths, NOON)
    assert found.gateway is not None
    assert found.next_fire is not None
    [said] = found.attention
    assert "see `bub-cron doctor`" in said


def test_sqlite_is_asked_for_nothing_that_a_rollback_journal_would_notice(place: Place) -> None:
    """A tick that writes while status looks is not in its way."""
    with closing(sqlite3.connect(place.paths.ledger, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        with place.gateway(answering()):
            assert attention(place) == []
