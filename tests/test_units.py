"""The text of units and crontab entries: what systemd, cron and the shell read back is what went in."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from examples_kit import up_to
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bub_cron.errors import UnusablePathError
from bub_cron.paths import VARIABLES, Paths
from bub_cron.trigger import crontabs, units
from bub_cron.trigger.units import BY_HAND, SYSTEM, USER

ROOT = Path(__file__).parent.parent
UNITS = {SYSTEM: ROOT / "systemd", USER: ROOT / "systemd" / "user"}
PYTHON = "/opt/bub/bin/python"
PATHS = Paths("/srv/bub", "/srv/bub/reminders.yaml", "/srv/bub/cron", "/srv/bub/cron/cron.sock")
ODD = "/a b/%h%%/\"q\"'r'/\\\\n\\%/$d${e}/#;é|&"
absolute = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30).map("/{}".format)
printable = absolute.filter(str.isprintable)


def all_at(path: str) -> Paths:
    return Paths(path, f"{path}/file", f"{path}/state", f"{path}/socket")


def systemd_words(line: str) -> list[str]:
    """Split a value as systemd.syntax(7) says, then put its specifiers in; anything that we should never write fails."""
    words, word, quote, rest = [], "", "", iter(line)
    started = False
    for character in rest:
        if character == "\\":
            word += (escaped := next(rest))
            assert escaped in '\\"', "another escape would mean another character"
        elif quote or character in "\"'":
            if not quote:
                quote, started = character, True
            elif character == quote:
                quote = ""
            else:
                word += character
        elif character in " \t":
            if word or started:
                words.append(word)
            word, started = "", False
        else:
            word += character
    assert not quote
    words += [word] if word or started else []
    assert all("%" not in word.replace("%%", "") for word in words), "a specifier"
    return [word.replace("%%", "%") for word in words]


def values(text: str, key: str) -> list[str]:
    return re.findall(rf"^{key}=(.*)$", text, re.MULTILINE)


@given(home=printable, python=printable.filter(lambda path: not set(path) & set("\"'\\")))
@example(home=ODD, python="/a b/%h%%/$d${e}/#;é|&")
@settings(max_examples=up_to(300), deadline=None)
def test_systemd_reads_back_every_path(home: str, python: str) -> None:
    paths = all_at(home)
    service = units.unit_files(USER, units.baked(python, paths))["bub-cron.service"]
    assignments = [word for value in values(service, "Environment") for word in systemd_words(value)]
    assert assignments == [f"{name}={value}" for name, value in zip(VARIABLES, _four(paths), strict=True)]
    [command] = values(service, "ExecStart")
    colon = command.startswith(":")
    assert colon == ("$" in python), "without the colon, systemd puts variables into it"
    assert systemd_words(command.removeprefix(":")) == [python, "-P", "-m", "bub_cron", "tick"]


@given(home=printable)
@example(home=ODD)
@settings(max_examples=up_to(200), deadline=None)
def test_a_system_unit_may_write_to_the_stores_alone(home: str) -> None:
    files = units.unit_files(SYSTEM, units.baked(PYTHON, all_at(home), "bub"))
    [where] = values(files["bub-cron.service"], "ReadWritePaths")
    assert systemd_words(where) == [f"{home}/state"]
    assert values(files["bub-cron.service"], "User") == ["bub"]
    assert values(files["bub-cron@.service"], "ReadWritePaths") == []


def test_the_real_systemd_reads_back_odd_commands(tmp_path: Path) -> None:
    """It names each command that it can't find, as it read it."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    odd = ["/with space/python", "/100%/python", "/%h/python", "/$HOME/${a}/python", "/é/python", "/a;b/#/&|/@-+!:"]
    for number, python in enumerate(odd):
        text = units.unit_files(USER, units.baked(python, PATHS))["bub-cron.service"]
        (tmp_path / f"odd-{number}.service").write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", *sorted(map(str, tmp_path.glob("*.service")))],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    for number, python in enumerate(odd):
        # What it prints is cut at nothing, and escaped nowhere.
        assert f"odd-{number}.service: Command {python} is not executable" in done.stderr
    assert len(done.stderr.splitlines()) == len(odd), "nothing else is wrong with them"


@pytest.mark.parametrize("bad", ["/a\nb", "/a\x1b[31m", "/a\u202eb", "/\udcff", "/a\0b"])
@pytest.mark.parametrize("what", ["python", "home"])
def test_a_path_that_neither_can_hold_is_refused(bad: str, what: str) -> None:
    python, paths = (bad, PATHS) if what == "python" else (PYTHON, all_at(bad))
    for make in (units.baked, crontabs.crontab_entry):
        with pytest.raises(UnusablePathError, match="can't hold"):
            make(python, paths)


def test_an_interpreter_that_could_not_be_started_is_refused() -> None:
    for quote in "\"'\\":
        with pytest.raises(UnusablePathError, match="systemd runs no program"):
            units.baked(f"/a{quote}b/python", PATHS)
    with pytest.raises(UnusablePathError, match="assignment"):
        crontabs.crontab_entry("/a=b/python", PATHS)


@pytest.mark.parametrize(
    ("python", "home", "own"),
    [
        (PYTHON, "/srv/bub", True),
        (PYTHON, "/tmpfoo", True),  # noqa: S108
        (PYTHON, "/tmp/bub", False),  # noqa: S108
        (PYTHON, "/var/tmp", False),  # noqa: S108
        ("/tmp/venv/bin/python", "/srv/bub", False),  # noqa: S108
    ],
)
def test_a_system_service_has_no_tmp_of_its_own_where_it_needs_the_machines(
    python: str, home: str, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "PACKAGE", "/opt/bub/lib/bub_cron")
    files = units.unit_files(SYSTEM, units.baked(python, all_at(home), "bub"))
    for name in ("bub-cron.service", "bub-cron@.service"):
        assert ("\nPrivateTmp=true\n" in files[name]) == own


def _four(paths: Paths) -> tuple[str, str, str, str]:
    return paths.home, paths.file, paths.state, paths.socket


# --- The files in systemd/


@pytest.mark.parametrize("manager", [USER, SYSTEM])
def test_the_files_are_what_install_writes_but_for_the_paths(manager: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "PACKAGE", "/opt/bub/lib/bub_cron")
    stand = {path.name: path.read_text() for path in UNITS[manager].glob("bub-cron*.*")}
    assert stand == units.unit_files(manager, BY_HAND[manager])
    for name, text in units.unit_files(manager, units.baked(PYTHON, PATHS, "bub")).items():
        assert _without_paths(text) == _without_paths(stand[name])


def _without_paths(unit: str) -> list[str]:
    lines = [line for line in unit.splitlines() if not line.startswith(("Environment=", "ReadWritePaths=", "User="))]
    return [re.sub(r"^ExecStart=.* (tick|fire %i)$", r"ExecStart=... \1", line) for line in lines]


@pytest.mark.parametrize("manager", [USER, SYSTEM])
def test_systemd_finds_nothing_wrong_with_the_files(manager: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    files = [str(path) for path in UNITS[manager].glob("bub-cron*.*")]
    if manager == SYSTEM:
        files += [str(ROOT / "systemd" / "on-failure" / "bub-cron-failed.service")]
        files += [str(path) for path in (ROOT / "systemd" / "metrics").iterdir()]
    done = subprocess.run(
        ["systemd-analyze", f"--{manager}", "verify", *files],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["bub-cron.service", "bub-cron@.service", "metrics/bub-cron-metrics.service"])
def test_little_is_exposed(name: str) -> None:
    """Below 3 of 10, as `systemd-analyze security` counts."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=29"]
    done = subprocess.run([*command, str(UNITS[SYSTEM] / name)], capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("this systemd-analyze can't judge a file")
    assert done.returncode == 0, done.stdout[-300:] + done.stderr


def test_the_timer_runs_each_minute_in_utc_and_catches_up() -> None:
    for manager in (USER, SYSTEM):
        timer = (UNITS[manager] / "bub-cron.timer").read_text()
        for line in ("OnCalendar=*:* UTC", "AccuracySec=1s", "Persistent=true", "WantedBy=timers.target"):
            assert f"\n{line}\n" in timer


def test_what_is_left_out_on_purpose_stays_out() -> None:
    """It would take the gateway's shared memory away, or need privileges that a user manager doesn't have."""
    system, user = (units.unit_files(manager, BY_HAND[manager])["bub-cron.service"] for manager in (SYSTEM, USER))
    assert "RemoveIPC" not in system
    for option in ("Protect", "Private", "CapabilityBoundingSet", "ReadWritePaths", "User="):
        assert not re.search(rf"^{option}", user, re.MULTILINE)


# --- What is ours


def test_what_was_changed_by_hand_is_told_from_what_was_written() -> None:
    old, new = units.signed("old\ntext\n"), units.signed("new\ntext\n")
    assert units.verdict(None, new) == units.ABSENT
    assert units.verdict(new, new) == units.SAME
    assert units.verdict(old, new) == units.OURS
    for changed in ("", "mine\n", old + "\n", old.replace("text", "txet"), old.split("\n", 1)[1], f" {old}"):
        assert units.verdict(changed, new) == units.CHANGED


@given(st.text(), st.text())
@settings(deadline=None)
def test_one_character_is_a_change(text: str, other: str) -> None:
    written = units.signed(text)
    assert units.is_as_written(written)
    head, _, _ = written.partition("\n")
    assert units.is_as_written(f"{head}\n{other}") == (other == text)


# --- The crontab


def as_cron_reads(line: str) -> str:
    """Return the command of a line, with what Debian's cron does to percent signs and backslashes (tried on a real one)."""
    command, rest = "", iter(line.removeprefix("* * * * * "))
    for character in rest:
        if character == "\\":
            following = next(rest)
            command += following if following in "%\\" else character + following
        else:
            assert character != "%", "cron would make a newline of it"
            command += character
    return command


@given(home=printable, python=printable.filter(lambda path: "=" not in path))
@example(home=ODD, python=ODD)
@settings(max_examples=up_to(300), deadline=None)
def test_cron_and_the_shell_read_back_every_path(home: str, python: str) -> None:
    paths = all_at(home)
    mark, line, end = crontabs.crontab_entry(python, paths).split("\n")
    assert mark.startswith("# ") and not end
    assert shlex.split(as_cron_reads(line)) == crontabs.tick_command(python, paths)


def test_a_real_shell_reads_back_an_odd_path() -> None:
    line = crontabs.crontab_entry(ODD, all_at(ODD)).split("\n")[1]
    words = as_cron_reads(line).replace("/usr/bin/env ", "printf '%s\\n' ", 1)
    done = subprocess.run(["sh", "-c", words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == crontabs.tick_command(ODD, all_at(ODD))[1:]


def test_a_command_that_cron_would_refuse_is_refused() -> None:
    long = f"/{'l' * 200}"
    assert crontabs.crontab_entry(PYTHON, all_at(long))
    with pytest.raises(UnusablePathError, match="998 bytes"):
        crontabs.crontab_entry(PYTHON, all_at(f"/{'é' * 120}"))


ENTRY = crontabs.crontab_entry(PYTHON, PATHS)
OTHER = crontabs.crontab_entry(PYTHON, all_at("/elsewhere"))
foreign = st.text(st.characters(codec="utf-8")).filter(lambda text: "bub" not in text)


@settings(deadline=None)
@given(foreign, foreign)
@example("", "")
@example("MAILTO=me\n0 4 * * * true", "")
@example("a\r\n\x0b\x0c\u2028", "\n\n \n")
def test_no_byte_outside_of_the_entry_changes(before: str, after: str) -> None:
    ended = before if not before or before.endswith("\n") else f"{before}\n"
    assert crontabs.with_entry(before, ENTRY) == ended + ENTRY
    crontab = ended + OTHER + after
    assert crontabs.with_entry(crontab, ENTRY) == ended + ENTRY + after
    assert crontabs.without(crontab, crontabs.entries(crontab)) == ended + after
    assert crontabs.with_entry(ended + OTHER + after, OTHER) == ended + OTHER + after


def test_one_entry_is_left_of_several() -> None:
    crontab = f"# a\n{OTHER}# b\n{ENTRY}# c\n{OTHER}"
    assert crontabs.with_entry(crontab, ENTRY) == f"# a\n{ENTRY}# b\n# c\n"
    assert crontabs.without(crontab, crontabs.entries(crontab)) == "# a\n# b\n# c\n"


def test_what_comes_after_a_mark_is_ours_only_if_it_runs_a_tick() -> None:
    """Someone deleted our line: the one that moved up is theirs."""
    mark = ENTRY.split("\n")[0]
    crontab = f"{mark}\n0 4 * * * backup\n"
    [entry] = crontabs.entries(crontab)
    assert entry.text == f"{mark}\n"
    assert not units.is_as_written(entry.text)
    assert crontabs.without(crontab, [entry]) == "0 4 * * * backup\n"


@pytest.mark.parametrize("change", [lambda line: f"#{line}", lambda line: line.replace("* * *", "*/2 * *", 1)])
def test_a_changed_line_is_still_the_entry(change: object) -> None:
    assert callable(change)
    mark, line, _ = ENTRY.split("\n")
    [entry] = crontabs.entries(f"# a\n{mark}\n{change(line)}\n# b\n")
    assert entry.text == f"{mark}\n{change(line)}\n"
    assert units.verdict(entry.text, ENTRY) == units.CHANGED


def test_ticks_that_are_not_ours_are_found() -> None:
    mine = "* * * * * /home/me/.local/bin/bub-cron tick"
    crontab = f"{mine}\n{ENTRY}# * * * * * bub-cron tick\n0 9 * * * bub-cron fire standup\n"
    assert crontabs.foreign_ticks(crontab) == [mine]
