"""health/doctor.py: each link that can break is found broken, with what fixes it; a whole chain is only ok."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_gateway import Place
from gateway_kit import until
from health_kit import FILE, NOON, Programs, answering, contents, healthy, record

from bub_cron.cli import commands
from bub_cron.health import doctor, gateways, status
from bub_cron.health.doctor import examine
from bub_cron.health.finding import BROKEN, OK, WARNING, Finding
from bub_cron.paths import chat_file, find_paths
from bub_cron.trigger import crontabs, units
from bub_cron.trigger.ledger import Ledger
from bub_cron.trigger.machine import find_triggers

MINUTE = 60
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    made = healthy(tmp_path / "bub")
    made.open_inbox().close()
    return made


@pytest.fixture
def programs(tmp_path: Path, place: Place, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """A machine whose own systemd runs the tick, and whose other processes are nobody's concern."""
    made = Programs(tmp_path, monkeypatch)
    monkeypatch.setenv("BUB_HOME", str(place.home))
    made.timer(place.paths)
    made.linger()
    monkeypatch.setattr(doctor, "why_absent", lambda _: [])  # other tests' gateways may run beside this one
    return made


def examined(place: Place, now: int = NOON, **about: object) -> list[Finding]:
    chat = {"chat": "prompt", "chat_file": chat_file(place.paths.file)}
    with place.gateway(answering(**{**chat, **about})):
        return list(examine(place.paths, now))


def not_ok(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.state != OK]


def the_one(findings: list[Finding], link: str, state: str = BROKEN) -> Finding:
    """Return the one finding that isn't ok, which is of this link."""
    [found] = not_ok(findings)
    assert (found.link, found.state) == (link, state), found
    assert found.remedy
    return found


def test_of_a_whole_chain_each_link_is_ok(place: Place, programs: Programs) -> None:
    found = examined(place)
    assert not_ok(found) == []
    links = ["file", "zone", "stores", "stores", "disk", "clock", "trigger", "tick", "socket", "gateway", "plugin"]
    assert [finding.link for finding in found] == [*links, "channels", "chat", "firings"]


def test_looking_changes_nothing(place: Place, programs: Programs) -> None:
    before = contents(place)
    examined(place)
    assert contents(place) == before


# --- The file, the zone, the clock


def test_a_missing_file(place: Place, programs: Programs) -> None:
    os.unlink(place.paths.file)
    assert the_one(examined(place), "file").remedy == "bub-cron init"


def test_a_file_with_faults(place: Place, programs: Programs) -> None:
    place.write("reminders: {a: {every: 1m, to: 't:1', timezone: Europe/Berlyn, text: x}}", NOON)
    found = the_one(examined(place), "file")
    assert "has 1 fault; its last good version stays in force" in found.text
    assert found.remedy.startswith("bub-cron check ")


def test_which_channels_a_faulty_file_uses_is_not_known(place: Place, programs: Programs) -> None:
    for text, words in (
        ("reminders: {a: {every: 1x}}", "which of them reminders use can't be seen in the file"),
        ("reminders: {}", "no enabled reminder uses one"),
    ):
        place.write(text, NOON)
        [found] = [one for one in examined(place) if one.link == "channels"]
        assert (found.state, found.text) == (OK, f"telegram; {words}")


def test_a_file_that_was_never_good_has_no_earlier_version(place: Place, programs: Programs) -> None:
    drop_in = place.home / "reminders.d" / "new.yaml"
    drop_in.parent.mkdir()
    drop_in.write_text("reminders: {a: {every: 1x}}\n")
    found = the_one(examined(place), "file")
    assert "there is no earlier good version, so none of its reminders fire" in found.text


def test_remedies_keep_the_flags_in_force(place: Place, programs: Programs) -> None:
    paths = find_paths(file=f"{place.home}/other.yaml")
    found = [finding for finding in examine(paths, NOON) if finding.state != OK]
    remedies = [finding.remedy for finding in found if finding.remedy.startswith("bub-cron")]
    assert len(remedies) >= 2
    assert all(f" --file {paths.file}" in remedy for remedy in remedies), remedies


def test_our_entry_that_was_commented_out_has_a_remedy_that_helps(place: Place, programs: Programs) -> None:
    programs.unit("user", "bub-cron.timer", LoadState="not-found")
    programs.tab(crontabs.crontab_entry(sys.executable, place.paths).replace("\n* *", "\n#* *"))
    found = the_one(examined(place), "trigger", WARNING)
    assert "is commented out" in found.text
    assert found.remedy.startswith("crontab -e ")


def test_a_file_that_cannot_be_read(place: Place, programs: Programs) -> None:
    os.unlink(place.paths.file)
    os.mkdir(place.paths.file)
    assert the_one(examined(place), "file").remedy.startswith("ls -l ")


def test_what_may_not_be_meant_is_a_warning(place: Place, programs: Programs) -> None:
    place.write(FILE + "  old: {at: 2020-01-01 08:00, text: x}\n", NOON)
    assert "old is past" in the_one(examined(place), "file", WARNING).text


def test_an_unknown_zone_of_the_machine(place: Place, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Mars/Olympus")
    assert "timedatectl" in the_one(examined(place), "zone").remedy


@pytest.mark.parametrize(("ahead", "words"), [(7200, "2 h"), (86400 - 4, "23 h 59 min")])
def test_a_clock_behind_the_ledger(place: Place, programs: Programs, ahead: int, words: str) -> None:
    with closing(Ledger(place.paths.ledger)) as ledger:
        ledger.set_last_tick(NOON + ahead, NOON + ahead)
    found = the_one(examined(place), "clock")
    assert f"{words} before the last tick" in found.text
    assert "the next tick counts on from now" in found.text


# --- The stores and their disk


def test_places_that_are_not_there_yet(tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(tmp_path / "new")
    monkeypatch.setenv("BUB_HOME", str(place.home))
    programs.timer(place.paths)
    found = list(examine(place.paths, NOON))
    assert {finding.link: finding.remedy for finding in not_ok(found)} == {
        "file": "bub-cron init",
        "tick": "bub-cron tick    # and see the trigger, above",
        "gateway": "bub gateway",
    }
    assert not place.home.exists()


@pytest.mark.parametrize("side", ["ledger", "inbox"])
@pytest.mark.parametrize("damage", ["empty", "text", "torn"])
def test_a_damaged_store(place: Place, programs: Programs, side: str, damage: str) -> None:
    path = Path(getattr(place.paths, side))
    content = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "text": b"text " * 999, "torn": content[:4096] + bytes(len(content) - 4096)}[damage]
    )
    found = not_ok(examined(place))
    assert found[0].link == "stores"
    assert found[0].state == BROKEN
    assert f"{side}.db is damaged" in found[0].text
    assert found[0].remedy.startswith("bub-cron tick " if side == "ledger" else "restart the gateway ")
    assert not any("no tick has ever run" in finding.text for finding in found)


@pytest.mark.parametrize("which", ["home", "state"])
def test_a_directory_that_others_may_write(place: Place, programs: Programs, which: str) -> None:
    directory = getattr(place.paths, which)
    os.chmod(directory, 0o777)  # noqa: S103
    found = {finding.link: finding for finding in examined(place)}
    assert (found["stores"].state, found["stores"].remedy) == (BROKEN, f"chmod go-w {directory}")
    assert found["stores"].text.startswith(f"every tick is refused: others may write in {directory}")
    assert (found["tick"].state, found["tick"].text) == (BROKEN, "every tick is refused")
    assert place.tick(NOON)[0] == 74, "so it is"


@ROOT_ONLY
@pytest.mark.parametrize(("options", "link"), [("size=768k", "df -h"), ("size=768k,ro", "findmnt -T")])
def test_a_full_disk_and_a_read_only_one(place: Place, options: str, link: str) -> None:
    """In a mount namespace of its own, with the stores on a small tmpfs."""
    script = f"""
set -eu
mount --make-rprivate /
cp -r '{place.paths.state}' '{place.home}/kept'
mount -t tmpfs -o size=768k,mode=700 tmpfs '{place.paths.state}'
cp '{place.home}/kept/'* '{place.paths.state}'
if [ '{options}' = size=768k ]; then cat /dev/zero > '{place.paths.state}/filler' 2>/dev/null || true
else mount -o remount,ro '{place.paths.state}'; fi
exec '{sys.executable}' -m bub_cron doctor
"""
    environment = {**os.environ, "BUB_HOME": str(place.home)}
    done = subprocess.run(
        ["unshare", "--mount", "bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1, done.stderr
    [line] = [line for line in done.stdout.splitlines() if " disk " in line]
    assert line.startswith(f"broken   disk         nothing can be written in {place.paths.state}: ")
    assert f"-> {link} {place.paths.state}" in done.stdout


def test_a_file_system_that_knows_no_files_without_a_name(
    place: Place, programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_CREAT)  # which no file system takes
    assert not_ok(examined(place)) == []


# --- The tick


def test_no_timer(place: Place, programs: Programs) -> None:
    programs.unit("user", "bub-cron.timer", LoadState="not-found")
    found = the_one(examined(place), "trigger", WARNING)  # ticks come from somewhere
    assert found.remedy == "bub-cron install"
    late = not_ok(examined(place, NOON + 10 * MINUTE))
    assert [(finding.link, finding.state) for finding in late] == [("trigger", BROKEN), ("tick", BROKEN)]


def test_a_timer_that_is_off(place: Place, programs: Programs) -> None:
    programs.timer(place.paths, active="inactive")
    assert the_one(examined(place), "trigger").remedy == "systemctl --user enable --now bub-cron.timer"


def test_a_timer_that_is_off_beside_one_that_runs(place: Place, programs: Programs) -> None:
    programs.timer(place.paths, active="inactive")
    programs.timer(place.paths, "system", User="root")
    the_one(examined(place), "trigger", WARNING)


def test_a_timer_for_another_home(place: Place, programs: Programs, tmp_path: Path) -> None:
    other = find_paths({"BUB_HOME": str(tmp_path / "an other")})
    programs.timer(other)
    found = not_ok(examined(place, NOON + 10 * MINUTE))
    assert [(finding.link, finding.state) for finding in found] == [("trigger", BROKEN), ("tick", BROKEN)]
    assert f"for other places (BUB_HOME={other.home}, and this is {place.home})" in found[0].text
    assert found[0].remedy.startswith(f"BUB_HOME='{other.home}' bub-cron doctor ")
    programs.timer(place.paths, "system", User="root")
    assert not_ok(examined(place)) == [], "who has two gateways has two timers"


def test_what_else_a_trigger_sets_is_said_and_the_address_of_a_ping_is_not(place: Place, programs: Programs) -> None:
    values = f"BUB_HOME={place.home} TZ=Asia/Tokyo BUB_CRON_TICK_PING=https://example.org/secret"
    programs.timer(place.paths, Environment=values)
    [found] = [finding for finding in examined(place) if finding.link == "trigger"]
    assert (found.state, found.text) == (OK, "your bub-cron.timer runs the tick, with TZ=Asia/Tokyo and a ping")


def test_a_crontab_line_with_other_flags_has_a_remedy_that_names_them(place: Place, programs: Programs) -> None:
    programs.unit("user", "bub-cron.timer", LoadState="not-found")
    programs.tab(f"* * * * * BUB_HOME={place.home} bub-cron tick --state /srv/state\n")
    found = the_one(examined(place), "trigger", WARNING)
    assert f"for other places (--state /srv/state, and this is {place.paths.state})" in found.text
    assert found.remedy == "bub-cron doctor --state /srv/state    # or for these places: bub-cron install"
    [trigger] = find_triggers()
    assert trigger.serves(find_paths(state="/srv/state")), "so the remedy doesn't lead here again"


def test_a_crontab_without_a_cron(place: Place, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bub_cron.trigger.machine._CRONS", frozenset[str]())
    programs.unit("user", "bub-cron.timer", LoadState="not-found")
    programs.tab(programs.tab_line(place.paths))
    assert "no cron daemon is seen" in the_one(examined(place), "trigger", WARNING).text
    assert not_ok(examined(place, NOON + 10 * MINUTE))[0].state == BROKEN


@pytest.mark.parametrize("program", ["/usr/bin/curl", sys.executable])
def test_a_crontab_line_that_tells_a_monitor_is_known(place: Place, programs: Programs, program: str) -> None:
    programs.unit("user", "bub-cron.timer", LoadState="not-found")
    ping = units.TickPing("https://hc-ping.com/secret-uuid", program)
    programs.tab(crontabs.crontab_entry(sys.executable, place.paths, ping))
    [found] = [trigger for trigger in find_triggers() if trigger.manager == "crontab"]
    assert found.serves(place.paths)
    assert found.python == sys.executable
    assert all("secret-uuid" not in finding.text + finding.remedy for finding in examined(place))


def test_a_late_tick(place: Place, programs: Programs) -> None:
    found = the_one(examined(place, NOON + 10 * MINUTE), "tick")
    assert found.text.startswith("no tick has run since ")
    assert found.remedy.startswith("bub-cron tick ")


def test_what_the_last_tick_said(place: Place, programs: Programs) -> None:
    with closing(Ledger(place.paths.ledger)) as ledger, ledger.transaction():
        ledger.is_news("busy\nand more", NOON)
    programs.timer(place.paths, **{"ActiveState": "failed", "StatusText": "the same"})
    assert the_one(examined(place), "tick", WARNING).text == "the last one said: busy"


def test_a_tick_that_cannot_even_write_its_ledger_is_quoted_from_systemd(place: Place, programs: Programs) -> None:
    programs.timer(place.paths, **{"ActiveState": "failed", "StatusText": "database or disk is full"})
    assert the_one(examined(place), "trigger", WARNING).text.endswith("failed: database or disk is full")


def test_a_timer_without_linger(place: Place, programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "fakes" / "linger").unlink()
    assert the_one(examined(place), "linger", WARNING).remedy == "loginctl enable-linger"


# --- The interpreter


def test_a_timer_that_runs_a_python_without_bub_cron(place: Place, programs: Programs, tmp_path: Path) -> None:
    python = bare_python(tmp_path)
    programs.timer(place.paths, python=str(python))
    found = the_one(examined(place), "interpreter")
    assert f"runs {python}, which has no bub-cron that works" in found.text


def test_a_timer_that_runs_another_version(place: Place, programs: Programs) -> None:
    found = not_ok(examined(place, version="9.9"))
    assert [(finding.link, finding.state) for finding in found] == [("plugin", WARNING), ("interpreter", BROKEN)]
    assert "the gateway has 9.9" in found[1].text


def test_a_timer_that_runs_another_python_of_the_same_version(place: Place, programs: Programs, tmp_path: Path) -> None:
    theirs = tmp_path / "venv" / "bin" / "python"
    theirs.parent.mkdir(parents=True)
    theirs.touch()
    found = the_one(examined(place, python=str(theirs)), "interpreter", WARNING)
    assert found.remedy == f"{theirs} -m bub_cron install"


def test_a_python_that_is_seen_in_a_container_alone_is_not_compared(place: Place, programs: Programs) -> None:
    assert not_ok(examined(place, python="/only/in/there/python")) == []


def test_a_gateway_of_another_protocol(place: Place, programs: Programs) -> None:
    assert the_one(examined(place, protocol=99), "plugin").text.startswith("the gateway has bub-cron ")


def bare_python(directory: Path) -> Path:
    """Make an environment that has nothing installed."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory / "bare"], check=True, timeout=60)
    return directory / "bare" / "bin" / "python"


# --- The gateway


def test_no_gateway(place: Place, programs: Programs) -> None:
    found = the_one(list(examine(place.paths, NOON)), "gateway")
    assert found.text.startswith("no gateway listens at ")
    assert found.remedy == "bub gateway"


def test_a_gateway_that_does_not_answer(place: Place, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "PATIENCE", 0.05)
    with place.gateway(lambda _: []):
        assert "did not answer" in the_one(list(examine(place.paths, NOON)), "gateway").text


def test_a_gateway_that_is_not_ready(place: Place, programs: Programs) -> None:
    why = "no channel has started"
    found = the_one(examined(place, ready=False, why=why), "gateway")
    assert found.text.endswith("it is not ready to start any: no channel has started")
    assert "restart it" in found.remedy
    found = the_one(examined(place, ready=False, why=why, since="2026-11-23T11:59:30Z"), "gateway", WARNING)
    assert "it is starting" in found.text


def test_a_firing_that_is_tried_again_is_a_warning_with_its_error(place: Place, programs: Programs) -> None:
    place.fill_inbox(id="a b", reminder="pills", state="retrying", error="refused", accepted_at=NOON)
    found = the_one(examined(place), "firings", WARNING)
    assert found.text == "a b has not worked yet and is being tried again: refused"
    assert found.remedy.startswith("bub-cron log --id 'a b' ")


def test_a_gateway_that_refuses_this_user(place: Place, programs: Programs) -> None:
    refusal = json.dumps({"status": "rejected", "error": "user 7 may not talk to this gateway"}).encode() + b"\n"
    with place.gateway(greeting=refusal, refuses=True):
        found = the_one(list(examine(place.paths, NOON)), "gateway")
    assert "BUB_CRON_ALLOW_UIDS=" in found.remedy


def test_something_that_is_no_socket(place: Place, programs: Programs) -> None:
    Path(place.paths.socket).touch()
    assert not_ok(list(examine(place.paths, NOON)))[0].remedy.startswith(f"mv {place.paths.socket} ")


@ROOT_ONLY
def test_places_of_another_user_have_one_finding(tmp_path: Path, programs: Programs) -> None:
    place = Place(Path("/var/lib") / f"bub-cron-{os.getpid()}")
    try:
        place.write(FILE, NOON)
        os.makedirs(place.paths.state)
        with place.gateway(answering()):
            os.chmod(place.paths.socket, stat.S_IRUSR | stat.S_IWUSR)
            list(examine(place.paths, NOON))  # whatever is imported late, from where nobody else may look
            os.seteuid(65534)
            try:
                [found] = examine(place.paths, NOON)
            finally:
                os.seteuid(0)
        assert (found.link, found.state) == ("user", BROKEN)
        assert found.text == f"{place.home} is user root's, and this is user nobody"
        assert found.remedy.startswith("sudo env BUB_HOME=") or found.remedy.startswith("sudo /")
    finally:
        shutil.rmtree(place.home)


@pytest.fixture
def fake_bub(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start processes that look like a `bub gateway`, and do nothing."""
    script = tmp_path / "bin" / "bub"
    script.parent.mkdir()
    script.write_text("import time\ntime.sleep(600)\n")
    started: list[subprocess.Popen[bytes]] = []

    def start(python: Path | str, **environment: str) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([python, script, "gateway"], env={"PATH": "/usr/bin:/bin", **environment}))
        until(lambda: any(process == started[-1].pid for process, _ in gateways._gateways()), "the process")
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def why(place: Place, process: subprocess.Popen[bytes]) -> gateways.Cause:
    [cause] = [
        cause for cause in gateways.why_absent(place.paths) if cause.text.startswith(f"process {process.pid} is a ")
    ]
    return cause


def test_a_gateway_without_the_plugin(
    place: Place, tmp_path: Path, fake_bub: Callable[..., subprocess.Popen[bytes]]
) -> None:
    python = bare_python(tmp_path)
    cause = why(place, fake_bub(python, BUB_HOME=str(place.home)))
    assert f"its Python, {python}, has no bub-cron" in cause.text
    assert cause.remedy.startswith(f"{python} -m pip install {Path(__file__).parent.parent} ")


def test_a_gateway_with_another_home(place: Place, fake_bub: Callable[..., subprocess.Popen[bytes]]) -> None:
    cause = why(place, fake_bub(sys.executable, HOME="/srv"))
    assert "but at /srv/.bub/cron/cron.sock" in cause.text
    assert cause.remedy.startswith("BUB_HOME=/srv/.bub bub-cron doctor ")
    assert cause.state == WARNING, "it may well be meant for another home"


def test_a_gateway_that_has_the_plugin_and_does_not_listen(
    place: Place, fake_bub: Callable[..., subprocess.Popen[bytes]]
) -> None:
    cause = why(place, fake_bub(sys.executable, BUB_HOME=str(place.home)))
    assert "its log says why, at cron.off or cron.waiting" in cause.text


def test_a_gateway_that_leaves_the_plugin_out(place: Place, fake_bub: Callable[..., subprocess.Popen[bytes]]) -> None:
    cause = why(place, fake_bub(sys.executable, BUB_HOME=str(place.home), BUB_ENABLED_CHANNELS="all, !cron"))
    assert cause.text.endswith(": its BUB_ENABLED_CHANNELS has !cron")


@ROOT_ONLY
def test_of_another_users_gateway_nothing_is_run(place: Place, tmp_path: Path) -> None:
    directory = Path("/var/lib") / f"bub-cron-{tmp_path.name}"
    directory.mkdir(mode=0o755)
    try:
        # A Python that would leave a trace, were it asked; the process only bears its name.
        (directory / "python").write_text(f"#!/bin/sh\ntouch {directory}/ran\n")
        (directory / "python").chmod(0o755)
        (directory / "bub").write_text("read -r -t 600 _ <> <(:)\n")
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        command = [
            *nobody,
            "bash",
            "-c",
            'exec -a "$0" bash "$1" gateway',
            str(directory / "python"),
            str(directory / "bub"),
        ]
        process = subprocess.Popen(command, env={"PATH": "/usr/bin:/bin", "BUB_HOME": str(place.home)})
        try:
            until(lambda: any(found == process.pid for found, _ in gateways._gateways()), "the process")
            others = gateways.why_absent(place.paths)
            cause = gateways._why(process.pid, [str(directory / "python"), "bub", "gateway"], place.paths)
        finally:
            process.kill()
            process.wait()
        assert cause.text.endswith("it is user nobody's")
        assert "sudo -u nobody env BUB_HOME=" in cause.remedy
        assert not any(str(process.pid) in one.text for one in others), "that is nothing of this user's"
        assert not (directory / "ran").exists()
    finally:
        shutil.rmtree(directory)


UNIT = '[Service]\nWorkingDirectory="/home/a b"\n'


def test_the_unit_of_bub_that_systemd_refuses(place: Place, programs: Programs, tmp_path: Path) -> None:
    unit = tmp_path / "bub-gateway.service"
    unit.write_text(UNIT)
    programs.unit("user", unit.name, LoadState="bad-setting", ActiveState="inactive", FragmentPath=str(unit))
    found = not_ok(list(examine(place.paths, NOON)))
    assert [(finding.link, finding.state) for finding in found] == [("gateway", BROKEN), ("gateway", BROKEN)]
    assert "Bub 0.5.1 puts quotes around WorkingDirectory=" in found[1].text
    sed, reload, restart = found[1].remedy.split("; ")
    assert (reload, restart) == ("systemctl --user daemon-reload", "systemctl --user restart bub-gateway.service")
    subprocess.run(["sh", "-c", sed], check=True)
    assert unit.read_text() == "[Service]\nWorkingDirectory=/home/a b\n"
    # A gateway that was started by hand is there, and its unit is still not well.
    assert the_one(examined(place), "gateway", WARNING).text.startswith("it won't start by itself: systemd refuses ")


@pytest.mark.parametrize(
    ("active", "remedy"),
    [
        ("failed", "systemctl --user status bub-gateway.service    # says why"),
        ("inactive", "systemctl --user enable --now bub-gateway.service"),
    ],
)
def test_a_unit_of_bub_that_does_not_run(place: Place, programs: Programs, active: str, remedy: str) -> None:
    programs.unit("user", "bub-gateway.service", ActiveState=active)
    assert not_ok(list(examine(place.paths, NOON)))[1].remedy == remedy
    assert not_ok(examined(place)) == [], "a gateway listens all the same"


# --- The channels, and what became of the last firings


def test_a_channel_that_the_gateway_has_not(place: Place, programs: Programs) -> None:
    more = "".join(f"  r{number}: {{every: 1h, to: 'feishu:1', text: x{number}}}\n" for number in range(7))
    place.write(FILE + more, NOON)
    found = the_one(examined(place), "channels")
    assert "no channel feishu (it has telegram), where r0, r1, r2, r3, r4 and 2 more should go" in found.text
    assert found.remedy.startswith(
        "install the plugin of feishu beside the gateway; give the gateway BUB_FEISHU_APP_ID "
    )
    assert "BUB_ENABLED_CHANNELS" not in found.remedy


@pytest.mark.parametrize(
    ("why", "text", "remedy"),
    [
        (
            "not configured",
            "the channel slack is installed but not configured",
            "BUB_SLACK_BOT_TOKEN and BUB_SLACK_APP_TOKEN",
        ),
        ("left out", "the gateway's BUB_ENABLED_CHANNELS leaves slack out", "add slack there, or remove that setting"),
    ],
)
def test_a_channel_that_is_installed_and_not_enabled(
    place: Place, programs: Programs, why: str, text: str, remedy: str
) -> None:
    place.write(FILE + "  a: {every: 1h, to: 'slack:1', text: x}\n", NOON)
    found = the_one(examined(place, not_enabled={"slack": why}), "channels")
    assert found.text.startswith(text)
    assert remedy in found.remedy
    assert ("bub onboard" in found.remedy) == (why == "not configured")


def test_a_gateway_without_any_chat(place: Place, programs: Programs) -> None:
    place.write("reminders: {}", NOON)
    assert the_one(examined(place, channels=[]), "channels").remedy.startswith("bub onboard ")


def test_the_channels_of_copies_and_alerts_are_looked_at_too(place: Place, programs: Programs) -> None:
    more = "  a: {every: 1h, to: 'telegram:1', text: x, also: 'slack:1', alert: 'feishu:1'}\n"
    more += "  b: {every: 1h, to: 'telegram:1', text: y, alert: none}\n"
    place.write(FILE + more, NOON)
    assert [finding.text.split(" (")[0] for finding in not_ok(examined(place))] == [
        "the gateway has no channel slack", "the gateway has no channel feishu",
    ]  # fmt: skip


def test_who_sends_by_himself_or_is_disabled_needs_no_channel(place: Place, programs: Programs) -> None:
    more = (
        "  a: {every: 1h, to: 'x:1', prompt: x, reply: agent}\n  b: {every: 1h, to: 'x:1', text: y, enabled: false}\n"
    )
    place.write(FILE + more, NOON)
    assert not_ok(examined(place)) == []


def test_gates_that_are_not_allowed(place: Place, programs: Programs) -> None:
    place.write(FILE + "  a: {every: 1h, prompt: x, gate: 'true'}\n", NOON)
    assert "BUB_CRON_ALLOW_GATES=true" in the_one(examined(place), "channels").remedy
    assert not_ok(examined(place, gates=True)) == []


def test_tools_that_the_gateway_does_not_have(place: Place, programs: Programs) -> None:
    found = not_ok(examined(place, unknown_tools={"mail": ["nosuch"]}))
    assert [finding.text for finding in found] == ["the gateway has no tool nosuch, which mail may use"]


def test_commands_that_are_not_allowed(place: Place, programs: Programs) -> None:
    place.write(FILE + "  a: {every: 1h, command: ',help'}\n", NOON)
    assert "BUB_CRON_ALLOW_COMMANDS=true" in the_one(examined(place), "channels").remedy
    assert not_ok(examined(place, commands=True)) == []


def test_a_firing_that_failed(place: Place, programs: Programs) -> None:
    record(place, NOON - 3600, error="too late: its grace was over")
    found = the_one(examined(place), "firings")
    assert found.text.startswith("pills was missed at ")
    assert found.remedy.startswith("bub-cron log --id pills@2026-11-23T11:00:00Z    # a longer `grace:` ")


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        ("AuthenticationError: Error code: 401 - Incorrect API key provided", "give the gateway a valid BUB_API_KEY"),
        ("Error code: 429 - You exceeded your current quota", "look at the limits and the balance"),
        ("ValueError: something else", "bub-cron log --id x    # shows every try; once"),
    ],
)
@pytest.mark.parametrize("state", ["failed", "retrying"])
def test_the_remedy_of_a_failed_turn_is_what_to_change(
    place: Place, programs: Programs, error: str, remedy: str, state: str
) -> None:
    place.fill_inbox(id="x", reminder="pills", fire_time="2026-11-23T11:00:00Z", state=state, error=error)
    found = the_one(examined(place), "firings", BROKEN if state == "failed" else WARNING)
    assert error in found.text
    assert found.remedy.startswith(remedy)
    assert found.remedy.endswith("bub-cron fire pills")


@pytest.mark.parametrize(
    "error", ["telegram's send() raised BadRequest: Chat not found", "SlackApiError: 'error': 'channel_not_found'"]
)
def test_the_remedy_of_a_wrong_chat_shows_the_right_one(place: Place, programs: Programs, error: str) -> None:
    place.fill_inbox(
        id="fire-pills-1",
        reminder="pills",
        state="undelivered",
        reason="refused_for_good",
        error=error,
        accepted_at=NOON,
    )
    found = the_one(examined(place), "firings")
    assert error in found.text
    assert found.remedy == (
        "bub-cron chats    # lists the chats that have written to the bot; correct `to:`, then: bub-cron fire pills"
    )


def test_a_firing_of_no_reminder_that_was_not_delivered_is_not_ok(place: Place, programs: Programs) -> None:
    place.fill_inbox(id="send-1", state="undelivered", error="no such chat", accepted_at=NOON - 60)
    found = the_one(examined(place), "firings", WARNING)
    assert found.text.startswith("the newest one: send-1 was not delivered at ")


def test_what_the_gateway_does_not_take(place: Place, programs: Programs) -> None:
    record(place, NOON - 1200, state=None)
    assert the_one(examined(place), "firings").remedy.startswith("bub-cron tick")


# --- The command


def run(place: Place) -> tuple[int, str]:
    environment = {"BUB_HOME": str(place.home), "BUB_CRON_FILE": "", "BUB_CRON_STATE": "", "BUB_CRON_SOCKET": ""}
    done = CliRunner().invoke(commands, ["doctor"], env=environment)
    return done.exit_code, done.output


def test_at_80_columns_each_text_is_wrapped_below_itself_and_no_command_is(place: Place, programs: Programs) -> None:
    record(place, NOON - 3600, error="a long reason " * 12)
    Path(place.paths.inbox).write_text("no store")  # its remedy is a long sentence
    programs.unit("user", "bub-cron.timer", LoadState="not-found")
    controller, slave = pty.openpty()
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "xterm"}
    command = [sys.executable, "-m", "bub_cron", "doctor"]
    subprocess.run(command, stdout=slave, env=environment, timeout=60, check=False)
    os.close(slave)
    shown = ""
    with contextlib.suppress(OSError):  # that is how a terminal's end is told
        while more := os.read(controller, 65536):
            shown += more.decode()
    os.close(controller)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", shown).splitlines()
    for line in lines:
        begins = re.match(r"(ok|warning|broken) +\w+ +| {9}-> | {12}# | {12}| {22}", line)
        assert begins, line
        assert len(line) <= 80 or re.match(r" {9}-> .*bub-cron ", line) or " " not in line.strip(), line
    assert any(line.startswith(" " * 22) for line in lines)


def test_the_command_exits_with_1_for_a_broken_link_alone(place: Place, programs: Programs, tmp_path: Path) -> None:
    with closing(Ledger(place.paths.ledger)) as ledger:
        ledger.set_last_tick(int(time.time()), int(time.time()))
    with place.gateway(answering()):
        code, out = run(place)
        assert code == 0, out
        assert {line.split()[0] for line in out.splitlines()} == {"ok"}
        (tmp_path / "fakes" / "linger").unlink()
        code, out = run(place)
        assert code == 0, out
        assert "warning  linger       your timer runs only while you are logged in\n" in out
        assert "         -> loginctl enable-linger\n" in out
    code, out = run(place)
    assert code == 1
    assert "broken   gateway      no gateway listens at " in out
