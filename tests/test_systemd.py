"""Under a real systemd, system manager and user manager: from `bub-cron install` to the message in the chat."""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from gateway_kit import SCRIPTS, until
from machine_kit import ROOT, Chat, Machine, need

# A home that would come to grief anywhere that a unit's line isn't quoted right.
ODD_HOME = "/srv/bub/a b%h \"q\" 'r' \\$d"


@pytest.fixture
def machine() -> Iterator[Machine]:
    need("/lib/systemd/systemd", "/lib/systemd/system/user@.service", "systemctl", "loginctl", "dbus-daemon", "runuser")
    need("nsenter", "setpriv")
    made = Machine(systemd=True)
    yield made
    made.close()


def test_a_skip_is_a_failure_where_these_tests_have_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BUB_CRON_REQUIRE_REAL", raising=False)
    with pytest.raises(pytest.skip.Exception, match="nosuchprogram"):
        need("nosuchprogram")
    monkeypatch.setenv("BUB_CRON_REQUIRE_REAL", "1")
    with pytest.raises(pytest.fail.Exception, match="nosuchprogram"):
        need("nosuchprogram")


def own_gateway(machine: Machine, alice: Chat) -> None:
    """Set up alice's own systemd, and in it the gateway as `bub gateway --install` does."""
    machine.run("loginctl", "enable-linger", "alice")
    until(lambda: "running" in systemctl(machine, "is-system-running", user="alice"), "alice's own systemd")
    assignments = [f"{name}={value}" for name, value in alice.gateway_environment.items()]
    machine.run("systemctl", "--user", "set-environment", *assignments, user="alice")
    done = machine.run(SCRIPTS / "bub", "gateway", "--install", user="alice", check=None)
    if done.returncode != 0:
        # Bub 0.5.1 quotes its WorkingDirectory=, which systemd 252 takes for a part of the path.
        assert "bad unit file setting" in done.stderr, done.stderr
        print(said := alice.bub_cron("install", "--dry-run"))
        assert "systemd refuses bub-gateway.service" in said
        print(said := alice.bub_cron("doctor", check=1))
        assert "broken   gateway      systemd refuses bub-gateway.service: Bub 0.5.1 puts quotes around" in said
        [remedy] = re.findall(r"-> (sed .*)", said)
        machine.run("sh", "-c", remedy, user="alice")


def system_gateway(machine: Machine, bub: Chat) -> None:
    environment = {**bub.gateway_environment, "BUB_HOME": bub.home}
    words = [
        "exec",
        "env",
        *(f"{name}={value}" for name, value in environment.items()),
        str(SCRIPTS / "bub"),
        "gateway",
    ]
    machine.inside("/srv/gateway.sh").write_text(shlex.join(words))
    unit = "[Service]\nUser=bub\nExecStart=/bin/sh /srv/gateway.sh\nWorkingDirectory=/home/bub\n"
    machine.inside("/etc/systemd/system/bub-gateway.service").write_text(unit)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "bub-gateway.service")


def systemctl(machine: Machine, *arguments: str, user: str = "root") -> str:
    words = ["systemctl", *(["--user"] if user != "root" else []), *arguments]
    done = machine.run(*words, user=user, check=None)
    return done.stdout + done.stderr


def test_from_install_to_the_message_in_the_chat(machine: Machine) -> None:
    machine.run("install", "-d", "-o", "bub", "-g", "bub", "/srv/bub")
    alice, bub = Chat(machine, "alice", "/home/alice/.bub"), Chat(machine, "bub", ODD_HOME)
    own_gateway(machine, alice)
    system_gateway(machine, bub)

    said = alice.bub_cron("install")
    print(said)
    assert "wrote /home/alice/.config/systemd/user/bub-cron.timer" in said
    assert "linger" not in said, "it is on"
    said = bub.bub_cron("install", "--system", user="root", BUB_HOME=ODD_HOME)
    print(said)
    assert "bub-cron.service runs as bub" in said
    assert "already installed" in alice.bub_cron("install")
    assert "already installed" in bub.bub_cron("install", "--system", user="root", BUB_HOME=ODD_HOME)
    shown = systemctl(machine, "show", "bub-cron.service", "--property=ReadWritePaths,User")
    assert f'ReadWritePaths="{ODD_HOME}/cron"\n' in re.sub(r"\\(.)", r"\1", shown)
    for user in ("root", "alice"):
        print(timers := systemctl(machine, "list-timers", "--no-pager", "bub-cron.timer", user=user))
        assert "bub-cron.service" in timers
    alice.wait_for_gateway(1)
    bub.wait_for_gateway(1)

    print("alice", alice.wait_for_message_in_time("the first message"))
    until(bub.times, "bub's first message")
    told_how_it_stands(machine, alice, bub)
    metrics_are_written(machine)
    print("bub", late := min(at % 60 for at in bub.times()))
    if late >= 3:
        bub.wait_for_message_in_time("a message of bub's")

    # Alice's gateway is restarted; bub's timer is off for over a minute.
    systemctl(machine, "stop", "bub-cron.timer")
    systemctl(machine, "restart", "bub-gateway.service", user="alice")
    off, before = time.time(), len(bub.times())
    alice.wait_for_gateway(2)
    print("alice, restarted", alice.wait_for_message_in_time("a message after the restart"))
    print(systemctl(machine, "status", "--no-pager", "bub-cron.service", user="alice"))
    print(machine.run("journalctl", "--no-pager", "-n", "12", "_UID=61001").stdout)
    # Well before the next minute, so that it is Persistent= that starts it.
    until(lambda: time.time() > off + 60 and 4 < time.time() % 60 < 40, "over a minute without bub's timer", 120)
    assert len(bub.times()) == before
    started = time.time()
    systemctl(machine, "start", "bub-cron.timer")
    until(lambda: len(bub.times()) > before, "the message that was missed")
    print("bub, persistent", bub.times()[-1] - started)
    assert bub.times()[-1] - started < 15

    machine.run("systemctl", "start", "bub-cron@minute.service")
    idle_minutes_leave_no_line(machine)
    a_failing_tick_says_why(machine, bub)
    one_reminder_from_a_timer_of_its_own(machine, alice)
    uninstalled(machine, alice, bub)


def told_how_it_stands(machine: Machine, alice: Chat, bub: Chat) -> None:
    """By doctor and status: all well; and with the timer stopped, what is broken and the command that fixes it."""
    for command in ("doctor", "status"):
        print(theirs := alice.bub_cron(command, check=1, BUB_HOME=bub.home))
        assert "is user bub's, and this is user alice" in theirs
        assert re.search(rf"sudo -u bub env BUB_HOME='.*' \S*bub-cron {command}", theirs)
        assert theirs.count("needs fixing") + theirs.count("broken") == 1
    # Root may look at bub's; what is bub's it never runs as root.
    for chat, user, option in ((alice, "alice", "--user "), (bub, "root", "")):
        print(well := chat.bub_cron("doctor", user=user, BUB_HOME=chat.home))
        assert "broken" not in well
        assert re.search(r"^ok +trigger .*bub-cron.timer runs the tick$", well, re.MULTILINE)
        print(*(chat.bub_cron(command, user=user, BUB_HOME=chat.home) for command in ("status", "log")), sep="")
        systemctl(machine, "stop", "bub-cron.timer", user=user)
        print(broken := chat.bub_cron("doctor", user=user, check=1, BUB_HOME=chat.home))
        assert re.search(r"^broken +trigger .*bub-cron.timer is off \(inactive\)$", broken, re.MULTILINE)
        assert broken.count("broken") == 1
        assert f"-> systemctl {option}enable --now bub-cron.timer\n" in broken
        systemctl(machine, "start", "bub-cron.timer", user=user)


def metrics_are_written(machine: Machine) -> None:
    """As systemd/metrics/ says, but for the paths: by a service that may write nowhere else."""
    machine.run("cp", "-r", f"{ROOT}/systemd/metrics/.", "/etc/systemd/system")
    there = machine.inside("/srv/textfile")
    machine.run("install", "-d", "-o", "bub", "/srv/textfile")
    tick = machine.inside("/etc/systemd/system/bub-cron.service").read_text()
    [home] = re.findall(r"^Environment=.*BUB_HOME.*$", tick, re.MULTILINE)
    (drop_in := machine.inside("/etc/systemd/system/bub-cron-metrics.service.d")).mkdir()
    paths = (
        f"Environment=PATH={SCRIPTS}:/usr/bin:/bin DIR=/srv/textfile\nReadWritePaths=\nReadWritePaths=/srv/textfile\n"
    )
    (drop_in / "paths.conf").write_text(f"[Service]\n{home}\n{paths}")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", "bub-cron-metrics.service")
    print(text := (there / "bub-cron.prom").read_text())
    for line in ("gateway_up 1.0", "gateway_ready 1.0", "stores_readable 1.0", "faulty_files 0.0", "needs_fixing 0.0"):
        assert f"\nbub_cron_{line}\n" in text
    assert re.search(r"^bub_cron_reminder_last_good_timestamp_seconds\{reminder=\"minute\"\} ", text, re.MULTILINE)
    assert (there / "bub-cron.prom").stat().st_mode & 0o777 == 0o644
    machine.run("systemctl", "start", "bub-cron-metrics.timer")
    assert "bub-cron-metrics.service" in systemctl(machine, "list-timers", "--no-pager")
    machine.run("systemctl", "stop", "bub-cron-metrics.timer")
    machine.run("sh", "-c", "rm -r /etc/systemd/system/bub-cron-metrics.*")
    machine.run("systemctl", "daemon-reload")


def idle_minutes_leave_no_line(machine: Machine) -> None:
    """Neither of the system's manager nor of a user's: only that the timers were started is in the journal."""
    journal = machine.run("journalctl", "--no-pager", "-o", "cat").stdout
    print("\n".join(line for line in journal.splitlines() if "bub-cron" in line))
    assert "Started bub-cron.timer" in journal, "it is kept at all"
    assert (
        re.findall(r".*(?:Starting|Finished) bub-cron.service.*|bub-cron.service: (?:Deactivated|Consumed).*", journal)
        == []
    )


def a_failing_tick_says_why(machine: Machine, bub: Chat) -> None:
    """In the journal on one line; in `systemctl status` also when the same trouble is not printed again."""
    machine.run("cp", "-r", f"{ROOT}/systemd/on-failure/.", "/etc/systemd/system")
    (bin_ := machine.inside("/srv/bin")).mkdir()
    (bin_ / "mail").write_text('#!/bin/sh\n{ echo "mail $*"; cat; } >> /srv/mails\n')
    (bin_ / "mail").chmod(0o755)
    (drop_in := machine.inside("/etc/systemd/system/bub-cron-failed.service.d")).mkdir()
    (drop_in / "path.conf").write_text("[Service]\nEnvironment=PATH=/srv/bin:/usr/bin:/bin\n")
    machine.run("systemctl", "daemon-reload")
    bub.write_file("reminders:\n  broken: {every: 1m}\n")
    mails = machine.inside("/srv/mails")
    for _ in range(2):
        systemctl(machine, "start", "bub-cron.service")
        print(status := systemctl(machine, "status", "--no-pager", "--full", "bub-cron.service"))
        assert "status=65" in status
        assert re.search(r"Status: \".*reminders.yaml:2:3: 'broken' has no ", status)
        # The mail has the status as it is then: at a second start it would be another one.
        until(lambda: "'broken' has no message" in read_if_there(mails), "the mail")
    journal = machine.run("journalctl", "--no-pager", "-u", "bub-cron.service", "-o", "cat").stdout
    assert re.search(r"^bub-cron: .*reminders.yaml:2:3: 'broken' has no message", journal, re.MULTILINE)
    assert "bub-cron.service: Failed with result 'exit-code'." in journal
    assert "Failed to start bub-cron.service" in journal
    assert machine.run("systemctl", "is-failed", "bub-cron.service").stdout == "failed\n"
    print(mail := mails.read_text())
    assert re.search(r"^mail -s bub-cron failed on \S+ root\n", mail)
    assert "'broken' has no message" in mail
    assert mail.count("mail -s") == 1, "one an hour"


def read_if_there(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def one_reminder_from_a_timer_of_its_own(machine: Machine, alice: Chat) -> None:
    before = len(alice.times())
    machine.run("systemctl", "--user", "start", "bub-cron@minute.service", user="alice")
    assert len(alice.times()) > before
    machine.run("systemctl", "--user", "enable", "--now", "bub-cron@minute.timer", user="alice")


def uninstalled(machine: Machine, alice: Chat, bub: Chat) -> None:
    print(said := alice.bub_cron("uninstall", check=73))
    assert "stay for bub-cron@minute.timer" in said
    alice.bub_cron("uninstall", "--force")
    bub.bub_cron("uninstall", user="root")
    machine.run("rm", "-r", "/etc/systemd/system/bub-cron-failed.service.d")
    for user, directory in (("alice", "/home/alice/.config/systemd/user"), ("root", "/etc/systemd/system")):
        there = {path.name for path in machine.inside(directory).glob("bub*")}
        assert there - {path.name for path in (ROOT / "systemd" / "on-failure").iterdir()} == {"bub-gateway.service"}
        assert "bub-cron.service" not in systemctl(machine, "list-units", "--failed", "--no-pager", user=user)
        assert "bub-cron" not in systemctl(machine, "list-timers", "--all", "--no-pager", user=user)
        assert "active" in systemctl(machine, "is-active", "bub-gateway.service", user=user)
