"""The commands install and uninstall, with systemctl, crontab, loginctl and runuser that only write down what they are
asked and keep what they are given; tests/test_systemd.py and tests/test_debian_cron.py run the real ones."""

from __future__ import annotations

import os
import pwd
import re
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bub_cron.cli import commands
from bub_cron.paths import find_paths
from bub_cron.trigger import crontabs, machine, units

# A manager that keeps what is enabled and active as files; `fail VERB` has the text with which a verb fails.
SYSTEMCTL = """\
#!/bin/sh
cd "$FAKES"
echo "systemctl $*" >> calls
manager=system
if [ "$1" = --user ]; then manager=user; shift; fi
verb=$1; shift
if [ -e "fail $verb" ]; then cat "fail $verb" >&2; exit 1; fi
if [ "$1" = --now ]; then shift; fi
case $verb in
is-system-running) cat "$manager runs" 2>/dev/null || { echo "Failed to connect to bus: No medium found" >&2; exit 1; } ;;
is-enabled) if [ -e "$manager enabled" ]; then echo enabled; else echo disabled; exit 1; fi ;;
is-active) if [ -e "$manager active" ]; then echo active; else echo inactive; exit 3; fi ;;
enable) echo "Created symlink" >&2; touch "$manager enabled" ;;
restart) touch "$manager active" ;;
disable) rm -f "$manager enabled" "$manager active" ;;
is-failed) if [ -e "$manager failed" ]; then echo failed; else echo inactive; exit 1; fi ;;
show)
    cat "show $2" 2>/dev/null && exit 0
    unit="$HOME/.config/systemd/user/$1"
    if [ $manager = system ]; then unit="$FAKES/../etc/$1"; fi
    if [ -e "$unit" ]; then echo LoadState=loaded; echo ActiveState=active; sed -n '/^Environment=/p; /^User=/p' "$unit"; fi
    exit 0 ;;
show-environment) cat "$verb" 2>/dev/null; exit 0 ;;
esac
"""
CRONTAB = """\
#!/bin/sh
cd "$FAKES"
echo "crontab $*" >> calls
if [ -e "fail crontab $1" ]; then cat "fail crontab $1" >&2; exit 1; fi
case $1 in
-l) if [ -e tab ]; then cat tab; else echo "no crontab for me" >&2; exit 1; fi ;;
-r) rm tab ;;
-) cat > tab ;;
esac
"""
LOGINCTL = '#!/bin/sh\ncat "$FAKES/linger" 2>/dev/null || echo no\n'
RUNUSER = '#!/bin/sh\necho "runuser $*" >> "$FAKES/calls"\nshift 3\nexec "$@"\n'
FAKES = {"systemctl": SYSTEMCTL, "crontab": CRONTAB, "loginctl": LOGINCTL, "runuser": RUNUSER}
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
FILES = ["bub-cron.service", "bub-cron.timer", "bub-cron@.service", "bub-cron@.timer"]


class Server:
    """A home and an /etc/systemd/system in a directory of its own, with fakes of what is run on PATH."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = directory / "home"
        self.fakes = directory / "fakes"
        self.user_units = self.home / ".config" / "systemd" / "user"
        self.system_units = directory / "etc"
        self.booted = directory / "booted"
        for made in (self.home, self.fakes, self.booted, self.home / ".bub"):
            made.mkdir()
        self.reminders = self.home / ".bub" / "reminders.yaml"
        self.reminders.write_text("reminders: {}\n")
        for name, script in FAKES.items():
            (self.fakes / name).write_text(script)
            (self.fakes / name).chmod(0o755)
        self.runs("user")
        monkeypatch.setattr(machine, "SYSTEM_UNITS", str(self.system_units))
        monkeypatch.setattr(machine, "BOOTED", str(self.booted))
        for name in ("XDG_CONFIG_HOME", "SUDO_USER", "BUB_HOME", "BUB_CRON_FILE", "BUB_CRON_STATE", "BUB_CRON_SOCKET"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(self.home))
        monkeypatch.setenv("PATH", f"{self.fakes}:/usr/bin:/bin")
        monkeypatch.setenv("FAKES", str(self.fakes))

    def runs(self, *managers: str, state: str = "running") -> None:
        """Let just these managers answer: user, system."""
        for manager in ("user", "system"):
            (self.fakes / f"{manager} runs").unlink(missing_ok=True)
        for manager in managers:
            (self.fakes / f"{manager} runs").write_text(f"{state}\n")
        if "system" not in managers and "user" not in managers and self.booted.exists():
            self.booted.rmdir()

    def fail(self, verb: str, text: str) -> None:
        (self.fakes / f"fail {verb}").write_text(text)

    def mend(self, verb: str) -> None:
        (self.fakes / f"fail {verb}").unlink()

    @property
    def tab(self) -> bytes | None:
        path = self.fakes / "tab"
        return path.read_bytes() if path.exists() else None

    @tab.setter
    def tab(self, content: bytes) -> None:
        (self.fakes / "tab").write_bytes(content)

    def changes(self) -> list[str]:
        """Return the calls since the last time that change something."""
        path = self.fakes / "calls"
        calls = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        asks = re.compile(r"systemctl (--user )?(is-|show)|crontab -l|runuser .* import ")
        return [call for call in calls if not asks.match(call)]

    def run(self, *arguments: str, exits: int = 0) -> Result:
        done = CliRunner().invoke(commands, arguments)
        assert done.exit_code == exits, f"{done.output}{done.exception!r}"
        return done

    def everything(self) -> dict[str, bytes]:
        """Return all files, but for what the fakes wrote down of their calls."""
        found = {path: path.read_bytes() for path in self.home.parent.rglob("*") if path.is_file()}
        return {str(path): content for path, content in found.items() if path.name != "calls"}


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(tmp_path, monkeypatch)


@pytest.fixture
def gateway(server: Server) -> Iterator[None]:
    """Something that listens where the gateway would."""
    (server.home / ".bub" / "cron").mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(server.home / ".bub" / "cron")  # a socket's path is short, a test's is not
        listener.bind("cron.sock")
        listener.listen()
        os.chdir(here)
        yield


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A BUB_HOME of the user daemon, where a system service's may well be."""
    with tempfile.TemporaryDirectory(prefix="bub-cron-", dir="/var/lib") as directory:
        daemon = pwd.getpwnam("daemon")
        os.chown(directory, daemon.pw_uid, daemon.pw_gid)
        monkeypatch.setenv("BUB_HOME", directory)
        yield Path(directory)


def as_written(server: Server, name: str = "bub-cron.service") -> str:
    files = units.unit_files(units.USER, units.baked(sys.executable, find_paths()))
    return units.signed(files[name])


# --- install --user


STARTED = [
    "systemctl --user daemon-reload",
    "systemctl --user enable bub-cron.timer",
    "systemctl --user restart bub-cron.timer",
    "systemctl --user start bub-cron.service",
]


def test_the_user_manager_is_chosen_where_it_runs(server: Server) -> None:
    said = server.run("install")
    assert server.changes() == STARTED
    for name in FILES:
        path = server.user_units / name
        assert path.read_text() == as_written(server, name)
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert f"wrote {path}\n" in said.stdout
    assert sorted(path.name for path in server.user_units.iterdir()) == FILES, "nothing is left beside them"
    assert not server.system_units.exists()
    assert server.tab is None


def test_a_second_time_changes_nothing(server: Server) -> None:
    server.run("install")
    server.changes()
    before = server.everything()
    assert "already installed" in server.run("install").stderr
    assert server.changes() == []
    assert server.everything() == before


def test_a_timer_that_someone_stopped_is_started_again(server: Server) -> None:
    server.run("install")
    server.changes()
    (server.fakes / "user active").unlink()
    server.run("install")
    assert server.changes() == STARTED


def test_other_paths_take_the_place_of_the_old_ones(server: Server) -> None:
    server.run("install")
    server.changes()
    file = server.home / "with space%.yaml"
    server.run("install", "--file", str(file), "--socket", "/run/bub.sock")
    text = (server.user_units / "bub-cron.service").read_text()
    assert f'Environment="BUB_CRON_FILE={server.home}/with space%%.yaml"' in text
    assert "Environment=BUB_CRON_SOCKET=/run/bub.sock\n" in text
    assert f"Environment=BUB_HOME={server.home}/.bub\n" in text
    assert f"Environment=BUB_CRON_STATE={server.home}/.bub/cron\n" in text
    assert f"ExecStart={sys.executable} -P -m bub_cron tick\n" in text
    assert server.changes() == STARTED


@pytest.mark.parametrize("where", ["--user", "--crontab"])
def test_another_home_is_not_taken_over_without_a_word(
    server: Server, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setenv("BUB_HOME", f"{server.home}/my bub")
    server.run("install", where)
    server.run("install", where, "--file", "/srv/other.yaml")
    monkeypatch.delenv("BUB_HOME")
    before = server.everything()
    server.changes()
    said = server.run("install", where, exits=73).stderr
    assert f"runs the tick for BUB_HOME={server.home}/my bub already, and this is {server.home}/.bub: " in said
    assert "`bub-cron install --name NAME` sets up another one beside it; --force takes it over" in said
    assert (server.everything(), server.changes()) == (before, [])
    server.run("install", where, "--force")
    assert "already installed" in server.run("install", where).stderr


def test_a_home_behind_a_link_is_no_other_home(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    (server.home / "link").symlink_to(".bub")
    monkeypatch.setenv("BUB_HOME", f"{server.home}/link")
    server.run("install")
    monkeypatch.delenv("BUB_HOME")
    server.run("install")


@pytest.mark.parametrize("where", ["--user", pytest.param("--system", marks=ROOT_ONLY)])
def test_a_second_home_has_units_with_a_name(
    server: Server, monkeypatch: pytest.MonkeyPatch, where: str, request: pytest.FixtureRequest
) -> None:
    if where == "--system":
        request.getfixturevalue("theirs")
    directory = server.user_units if where == "--user" else server.system_units
    server.run("install", where)
    first = (directory / "bub-cron.service").read_text()
    monkeypatch.setenv("BUB_HOME", f"{server.home}/second")
    server.changes()
    server.run("install", where, "--name", "second")
    option = " --user" if where == "--user" else ""
    assert f"systemctl{option} enable bub-cron-second.timer" in server.changes()
    text = (directory / "bub-cron-second.service").read_text()
    assert f"\nEnvironment=BUB_HOME={server.home}/second\n" in text
    assert "\nDescription=Submit due Bub reminders (second)\n" in text
    assert "`systemctl edit bub-cron-second@NAME.timer`" in (directory / "bub-cron-second@.timer").read_text()
    assert (directory / "bub-cron.service").read_text() == first
    assert "already installed" in server.run("install", where, "--name", "second").stderr
    assert "bub-cron-second.timer stays: `bub-cron uninstall --name second`" in server.run("uninstall", where).stderr
    assert sorted(path.name for path in directory.iterdir()) == [
        name.replace("bub-cron", "bub-cron-second") for name in FILES
    ]
    server.run("uninstall", where, "--name", "second")
    assert list(directory.iterdir()) == []


def test_a_second_home_has_an_entry_with_a_name(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.run("install", "--crontab")
    first = server.tab or b""
    monkeypatch.setenv("BUB_HOME", f"{server.home}/second")
    server.run("install", "--crontab", "--name", "second")
    assert server.tab is not None
    assert server.tab.startswith(first + b"# Written by bub-cron install --name second, sha256 ")
    assert "already installed" in server.run("install", "--crontab", "--name", "second").stderr
    server.run("uninstall", "--crontab", "--name", "second")
    assert server.tab == first


@pytest.mark.parametrize("name", ["a b", "../x", "a" * 41, "a%i"])
def test_a_name_that_a_unit_can_not_have_is_wrong_usage(server: Server, name: str) -> None:
    assert "may have letters, digits" in server.run("install", "--name", name, exits=2).stderr


def test_xdg_config_home_is_honoured(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(server.home / "xdg"))
    server.run("install", "--user")
    assert (server.home / "xdg" / "systemd" / "user" / "bub-cron.timer").exists()
    assert not server.user_units.exists()


@pytest.mark.parametrize("where", ["--user", pytest.param("--system", marks=ROOT_ONLY), "--crontab"])
def test_a_dry_run_prints_it_all_and_changes_nothing(
    server: Server, where: str, request: pytest.FixtureRequest
) -> None:
    theirs = request.getfixturevalue("theirs") if where == "--system" else server.home / ".bub"
    server.tab = b"# mine\n"
    before = server.everything()
    dry = server.run("install", where, "--dry-run")
    assert server.changes() == []
    assert server.everything() == before
    assert not (theirs / "cron").exists()
    server.run("install", where)
    ran = [f"$ {call}" for call in server.changes()]
    assert [line for line in dry.stdout.splitlines() if line.startswith("$ ") and "/usr/bin/env" not in line] == ran
    written = {path: content for path, content in server.everything().items() if path not in before}
    for path, content in written.items():
        if "/systemd/user/" in path or path.startswith(str(server.system_units)):
            assert f"# {path}\n{content.decode()}" in dry.stdout
    if where == "--crontab":
        assert server.tab is not None
        assert f"$ crontab -\n{server.tab.decode()}" in dry.stdout


def test_what_was_changed_by_hand_is_shown_and_kept(server: Server) -> None:
    server.run("install")
    timer = server.user_units / "bub-cron.timer"
    mine = timer.read_text().replace("AccuracySec=1s", "AccuracySec=30s")
    timer.write_text(mine)
    server.changes()
    said = server.run("install", "--state", "/srv/state", exits=73)
    assert "-AccuracySec=1s\n+AccuracySec=30s\n" in said.stderr
    assert timer.read_text() == mine
    assert "/srv/state" in (server.user_units / "bub-cron.service").read_text(), "the others are brought up to date"
    assert server.changes() == STARTED
    server.run("install", "--force", "--state", "/srv/state")
    assert timer.read_text() == as_written(server, "bub-cron.timer")


def test_a_unit_of_somebody_else_is_kept(server: Server) -> None:
    server.user_units.mkdir(parents=True)
    (server.user_units / "bub-cron.service").write_text("[Service]\nExecStart=/usr/bin/env bub-cron tick\n")
    said = server.run("install", "--dry-run", exits=73)
    assert "+ExecStart=/usr/bin/env bub-cron tick\n" in said.stderr
    assert "# Written by bub-cron" not in (server.user_units / "bub-cron.service").read_text()


def test_a_link_is_never_written_through(server: Server) -> None:
    """Not even to a file that is ours: it is someone's own doing."""
    precious = server.home / "precious"
    precious.write_text(units.signed("old\n"))
    server.user_units.mkdir(parents=True)
    link = server.user_units / "bub-cron.service"
    link.symlink_to(precious)
    masked = server.user_units / "bub-cron.timer"
    masked.symlink_to("/dev/null")
    server.run("install", exits=73)
    assert link.is_symlink()
    assert masked.is_symlink()
    server.run("install", "--force")
    assert not link.is_symlink()
    assert link.read_text() == as_written(server)
    assert precious.read_text() == units.signed("old\n")


@pytest.mark.parametrize(
    ("verb", "done", "not_done"),
    [
        ("daemon-reload", "wrote {}/bub-cron.service", "run systemctl --user enable bub-cron.timer"),
        ("enable", "ran systemctl --user daemon-reload", "run systemctl --user restart bub-cron.timer"),
        ("restart", "ran systemctl --user enable bub-cron.timer", "run systemctl --user start bub-cron.service"),
    ],
)
def test_a_step_that_fails_is_told_with_what_was_done(server: Server, verb: str, done: str, not_done: str) -> None:
    server.fail(verb, "Unit bub-cron.timer\nis masked.\n")
    said = server.run("install", exits=74).stderr
    assert re.search(rf"could not run systemctl --user {verb}.*: exit status 1: Unit bub-cron.timer is masked.\n", said)
    assert done.format(server.user_units) in re.search(r"done before that: (.*)", said)[1]  # type: ignore[index]
    assert not_done in re.search(r"not done: (.*)", said)[1]  # type: ignore[index]
    assert "fix that, then run `bub-cron install --user` again\n" in said
    server.mend(verb)
    server.run("install")
    assert (server.fakes / "user active").exists(), "the same again fixes it"


def test_a_first_tick_that_fails_is_said_and_all_is_installed(server: Server) -> None:
    server.fail("start", "Job for bub-cron.service failed.\n")
    said = server.run("install").stderr
    assert "it is installed, but the first tick failed: exit status 1: Job for bub-cron.service failed." in said
    (server.user_units / "bub-cron.timer").unlink()
    (server.fakes / "show --property=StatusText").write_text("StatusText=reminders.yaml:2:3: no message\n")
    said = server.run("install").stderr
    assert "it is installed, but the first tick failed: reminders.yaml:2:3: no message\n" in said


def test_a_file_that_can_not_be_written_is_told(server: Server) -> None:
    server.user_units.parent.mkdir(parents=True)
    server.user_units.write_text("a file where the directory should be")
    said = server.run("install", exits=77 if server.user_units.is_file() else 0).stderr
    assert f"{server.user_units}/bub-cron.service can't be read: Not a directory" in said
    assert server.changes() == []


# --- What is missing


def test_what_is_still_missing_is_said(server: Server) -> None:
    server.reminders.unlink()
    said = server.run("install").stderr
    assert "loginctl enable-linger" in said
    assert f"no gateway listens on {server.home}/.bub/cron/cron.sock yet" in said
    assert "`bub-cron init`" in said


def test_nothing_is_said_where_nothing_is_missing(
    server: Server, gateway: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (server.fakes / "linger").write_text("yes\n")
    monkeypatch.chdir(server.home / ".bub" / "cron")
    assert server.run("install", "--socket", "cron.sock").stderr == ""


def test_a_gateway_unit_with_another_home_is_pointed_out(server: Server) -> None:
    server.user_units.mkdir(parents=True)
    (server.user_units / "bub-gateway.service").write_text("[Service]\n")
    said = "bub-gateway.service uses ~/.bub"
    assert said not in server.run("install").stderr, "so does the tick"
    os.environ["BUB_HOME"] = str(server.home / "other")
    assert said in server.run("install", "--force").stderr
    (server.fakes / "show --property=Environment").write_text(f"PATH=/bin BUB_HOME={server.home}/other\n")
    assert said not in server.run("install").stderr
    assert (server.user_units / "bub-gateway.service").read_text() == "[Service]\n"


def test_a_gateway_unit_that_systemd_refuses_is_pointed_out(server: Server) -> None:
    server.user_units.mkdir(parents=True)
    (server.user_units / "bub-gateway.service").write_text("[Service]\n")
    (server.fakes / "show --property=LoadState,ActiveState,FragmentPath").write_text("LoadState=bad-setting\n")
    assert "systemd refuses bub-gateway.service" in server.run("install").stderr


@ROOT_ONLY
def test_a_home_of_another_user_is_pointed_out(server: Server, theirs: Path) -> None:
    assert f"{theirs} is user daemon's" in server.run("install", "--crontab").stderr


@ROOT_ONLY
def test_root_writes_into_nobodys_home(server: Server) -> None:
    os.chown(server.home, pwd.getpwnam("daemon").pw_uid, -1)
    assert f"{server.home} is not root's" in server.run("install", "--user", exits=77).stderr
    assert server.changes() == []


def test_what_runs_a_tick_already_is_pointed_out(server: Server) -> None:
    server.run("install", "--crontab")
    assert server.tab is not None
    server.tab += b"*/5 * * * * /usr/local/bin/bub-cron tick\n"
    said = server.run("install", "--user").stderr
    assert (
        "your crontab runs the tick for the same places, too: `bub-cron uninstall --crontab` if one is enough" in said
    )
    assert (
        "a line of the crontab that `install` did not write runs a tick, too: */5 * * * * /usr/local/bin/bub-cron tick"
        in said
    )
    said = server.run("install", "--crontab").stderr
    assert "your bub-cron.timer runs the tick for the same places, too: `bub-cron uninstall --user` if" in said


def test_a_crontab_that_no_daemon_reads_is_said(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "note: nothing runs the tick yet, since no cron daemon is seen to run: sudo "
    monkeypatch.setattr(machine, "cron_runs", lambda: False)
    assert said in server.run("install", "--crontab").stderr
    monkeypatch.setattr(machine, "cron_runs", lambda: True)
    assert said not in server.run("install", "--crontab").stderr


# --- What fits


def test_without_any_systemd_it_is_the_crontab(server: Server) -> None:
    server.runs()
    server.run("install")
    assert server.changes() == ["crontab -"]


@ROOT_ONLY
def test_root_without_a_manager_of_its_own_gets_the_systems(server: Server, theirs: Path) -> None:
    server.runs("system")
    assert "bub-cron.service runs as daemon" in server.run("install").stderr
    assert (server.system_units / "bub-cron.timer").exists()
    assert [call for call in server.changes() if call.startswith("systemctl")] == [
        call.replace(" --user", "") for call in STARTED
    ]


def test_a_user_without_a_manager_has_to_choose(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.runs("system")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    said = server.run("install", exits=69).stderr
    for words in ("Failed to connect to bus: No medium found", "XDG_RUNTIME_DIR", "sudo", "--crontab"):
        assert words in said
    assert server.changes() == []


def test_neither_is_there(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.runs()
    monkeypatch.setenv("PATH", str(server.fakes))
    (server.fakes / "crontab").unlink()
    assert "neither systemd nor crontab is here" in server.run("install", exits=69).stderr
    assert "crontab: No such file" in server.run("install", "--crontab", exits=69).stderr


@pytest.mark.parametrize(("state", "runs"), [("degraded", True), ("offline", False), ("starting", True)])
def test_a_manager_in_trouble_is_a_manager(server: Server, state: str, runs: bool) -> None:
    server.runs("user", state=state)
    server.run("install", "--user", exits=0 if runs else 69)


def test_the_system_is_for_root_and_for_systemd(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "use sudo" in server.run("install", "--system", exits=77).stderr
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    server.runs()
    assert "systemd doesn't run this machine" in server.run("install", "--system", exits=69).stderr


# --- install --system


@ROOT_ONLY
@pytest.mark.parametrize("how", ["--as-user", "the owner of BUB_HOME", "sudo"])
def test_the_gateways_user_runs_it(server: Server, theirs: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    daemon = pwd.getpwnam("daemon")
    arguments = ["install", "--system", "--state", f"{theirs}/state"]
    if how == "--as-user":
        os.chown(theirs, 0, 0)
        arguments += ["--as-user", "daemon"]
    if how == "sudo":
        monkeypatch.setenv("SUDO_USER", "daemon")
        monkeypatch.delenv("BUB_HOME")
    assert "bub-cron.service runs as daemon" in server.run(*arguments).stderr
    text = (server.system_units / "bub-cron.service").read_text()
    assert "\nUser=daemon\n" in text
    assert f"\nEnvironment=BUB_HOME={f'{daemon.pw_dir}/.bub' if how == 'sudo' else theirs}\n" in text
    assert f"\nReadWritePaths={theirs}/state\n" in text
    assert server.changes()[0] == f"runuser -u daemon -- mkdir -p -m 0700 {theirs}/state"
    assert stat.S_IMODE((theirs / "state").stat().st_mode) == 0o700
    assert "already installed" in server.run(*arguments).stderr


@ROOT_ONLY
def test_an_interpreter_that_the_user_can_not_run_is_told_before_anything_is_written(server: Server) -> None:
    (server.fakes / "runuser").write_text(
        "#!/bin/sh\necho 'runuser: failed to execute: Permission denied' >&2\nexit 126\n"
    )
    said = server.run("install", "--system", "--as-user", "daemon", exits=65).stderr
    assert f"daemon can't run {sys.executable} with bub-cron (runuser: failed to execute: Permission denied)" in said
    assert not server.system_units.exists()


@ROOT_ONLY
def test_a_user_that_is_not_there(server: Server) -> None:
    assert "there is no user nosuch" in server.run("install", "--system", "--as-user", "nosuch", exits=65).stderr
    assert "--system alone" in server.run("install", "--user", "--as-user", "daemon", exits=2).stderr


# --- install --crontab


OTHERS = b"# mine\nMAILTO=me\n\n0 4 * * *\tbackup \\%d \xff \x0b\n"


@pytest.mark.parametrize("before", [None, b"", OTHERS, OTHERS.rstrip(b"\n"), b"\n\n", b"\r\n"])
def test_other_lines_stay_byte_for_byte(server: Server, before: bytes | None) -> None:
    if before is not None:
        server.tab = before
    server.run("install", "--crontab")
    assert server.changes() == ["crontab -"]
    entry = crontabs.crontab_entry(sys.executable, find_paths()).encode()
    ended = before if not before or before.endswith(b"\n") else before + b"\n"
    assert server.tab == (ended or b"") + entry
    assert "already installed" in server.run("install", "--crontab").stderr
    server.run("install", "--crontab", "--file", "/srv/a%b.yaml")
    assert server.tab is not None
    assert b"BUB_CRON_FILE=/srv/a\\%b.yaml" in server.tab
    assert server.tab.startswith(ended or b"")
    server.run("uninstall", "--crontab")
    assert server.tab == (ended or None), "an empty crontab is none"


def test_a_line_that_was_changed_by_hand_is_shown_and_kept(server: Server) -> None:
    server.run("install", "--crontab")
    assert server.tab is not None
    server.tab = mine = server.tab.replace(b"* * * * *", b"*/5 * * * *") + OTHERS
    server.changes()
    said = server.run("install", "--crontab", exits=73)
    assert "+*/5 * * * *" in said.stderr
    server.run("uninstall", "--crontab", exits=73)
    assert (server.tab, server.changes()) == (mine, [])
    server.run("install", "--crontab", "--force")
    assert server.tab == crontabs.crontab_entry(sys.executable, find_paths()).encode() + OTHERS


def test_the_line_works_as_it_stands(server: Server) -> None:
    server.run("install", "--crontab")
    assert server.tab is not None
    line = server.tab.decode().splitlines()[1].removeprefix("* * * * * ")
    (server.home / ".bub" / "cron" / "ledger.db").unlink()
    subprocess.run(["sh", "-c", line], cwd="/", env={"PATH": "/usr/bin:/bin"}, check=True)
    assert (server.home / ".bub" / "cron" / "ledger.db").exists()


def test_a_crontab_that_can_not_be_had_is_told(server: Server) -> None:
    server.fail("crontab -l", "You (me) are not allowed to use this program (crontab)\n")
    assert "You (me) are not allowed" in server.run("install", "--crontab", exits=69).stderr
    server.mend("crontab -l")
    server.fail("crontab -", '"-":1: bad minute\n')
    assert (
        'could not run crontab -: exit status 1: "-":1: bad minute'
        in server.run("install", "--crontab", exits=74).stderr
    )


# --- uninstall


def test_nothing_to_uninstall(server: Server) -> None:
    assert "nothing of it is installed" in server.run("uninstall").stderr
    assert server.changes() == []


@ROOT_ONLY
def test_uninstall_undoes_all_of_it(server: Server, theirs: Path) -> None:
    server.tab = OTHERS
    server.user_units.mkdir(parents=True)
    (server.user_units / "bub-gateway.service").write_text("[Service]\n")
    before = server.everything()
    server.run("install", "--user")
    server.run("install", "--crontab")
    server.run("install", "--system")
    server.changes()

    dry = server.run("uninstall", "--dry-run")
    assert server.changes() == []
    server.run("uninstall")
    changes = server.changes()
    assert [line[2:] for line in dry.stdout.splitlines() if line.startswith("$ ")] == changes
    assert changes[:2] == ["systemctl --user disable --now bub-cron.timer", "systemctl --user daemon-reload"]
    assert server.everything() == before
    assert (theirs / "cron" / "ledger.db").exists(), "what was recorded stays"


def test_a_failed_unit_is_not_left_among_the_failed(server: Server) -> None:
    server.run("install")
    (server.fakes / "user failed").touch()
    server.changes()
    server.run("uninstall")
    assert server.changes()[:2] == [
        "systemctl --user disable --now bub-cron.timer",
        "systemctl --user reset-failed bub-cron.service",
    ]


def test_uninstall_keeps_a_changed_timer_together_with_its_service(server: Server) -> None:
    server.run("install")
    timer = server.user_units / "bub-cron.timer"
    timer.write_text(timer.read_text() + "# mine\n")
    server.changes()
    said = server.run("uninstall", exits=73)
    assert "\n--- " in said.stderr
    assert "+# mine\n" in said.stderr
    stop = "`systemctl --user disable --now bub-cron.timer` stops it"
    assert f"bub-cron.timer stays, and still runs the tick: {stop}" in said.stderr
    assert sorted(path.name for path in server.user_units.iterdir()) == FILES[:2]
    assert server.changes() == ["systemctl --user daemon-reload"]
    server.run("uninstall", "--force")
    assert list(server.user_units.iterdir()) == []


def test_no_diff_is_shown_against_what_was_never_installed(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.run("install", "--ping", "https://example.org/x")
    service = server.user_units / "bub-cron.service"
    service.write_text(service.read_text() + "# mine\n")
    said = server.run("uninstall", exits=73).stderr
    assert "+# mine\n" in said
    assert "\n-" not in said.replace("\n---", ""), "nothing else is another"
    monkeypatch.setenv("BUB_HOME", f"{server.home}/other")
    said = server.run("uninstall", exits=73).stderr
    assert f"{service} was changed by hand, and stays as it is\n" in said
    assert "# mine" not in said


def test_templates_stay_for_an_instance_that_someone_enabled(server: Server) -> None:
    server.run("install")
    wants = server.user_units / "timers.target.wants"
    wants.mkdir()
    (wants / "bub-cron@standup.timer").symlink_to(server.user_units / "bub-cron@.timer")
    server.changes()
    assert "stay for bub-cron@standup.timer" in server.run("uninstall", exits=73).stderr
    assert sorted(path.name for path in server.user_units.iterdir()) == [*FILES[2:], "timers.target.wants"]
    server.run("uninstall", "--force")
    assert "systemctl --user disable --now bub-cron@standup.timer" in server.changes()


def test_a_failing_disable_removes_nothing(server: Server) -> None:
    server.run("install")
    server.fail("disable", "Failed to connect to bus\n")
    said = server.run("uninstall", exits=74).stderr
    assert (
        "could not run systemctl --user disable --now bub-cron.timer: exit status 1: Failed to connect to bus" in said
    )
    assert "done before that: nothing" in said
    assert sorted(path.name for path in server.user_units.iterdir()) == FILES


def test_the_systems_units_are_roots(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    server.system_units.mkdir()
    (server.system_units / "bub-cron.timer").write_text(units.signed("x\n"))
    server.run("install")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "use sudo" in server.run("uninstall", "--system", exits=77).stderr
    said = server.run("uninstall")
    assert f"the units in {server.system_units} are root's, and stay" in said.stderr
    assert not (server.user_units / "bub-cron.timer").exists()
