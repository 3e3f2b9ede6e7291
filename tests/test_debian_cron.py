"""Under a real Debian cron, and a real crond of busybox, without systemd: from the line to the message in the chat."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator

import pytest
from gateway_kit import PATIENCE, SCRIPTS, until
from machine_kit import ROOT, Chat, Machine, need

# What cron, its shell and env(1) would take for something else, each twice: percent signs, backslashes, quotes, dollars.
ODD_HOME = "/home/bub/a b%%h \\% \\\\n 'r' \"q\" $d"
OTHERS = '# mine\nMAILTO=""\n\n0 4 * * *\techo 100\\% # \\\n@reboot true\n'


@pytest.fixture
def machine() -> Iterator[Machine]:
    need("cron", "crontab", "nsenter", "setpriv")
    made = Machine(systemd=False)
    yield made
    made.close()


@pytest.fixture
def running() -> Iterator[list[subprocess.Popen[bytes]]]:
    """What a test starts; it ends with the machine, and is only waited for here."""
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def test_from_install_to_the_message_in_the_chat(machine: Machine, running: list[subprocess.Popen[bytes]]) -> None:
    bub = Chat(machine, "bub", ODD_HOME)

    def start(*command: str, user: str, also: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        started = subprocess.Popen(machine.command(*command, user=user, also=also), stdin=subprocess.DEVNULL)
        running.append(started)
        return started

    def gateway() -> subprocess.Popen[bytes]:
        words = ["sh", "-c", 'echo $$ > ~/pid; exec "$@"', "sh", str(SCRIPTS / "bub"), "gateway"]
        return start(*words, user="bub", also={**bub.gateway_environment, "BUB_HOME": bub.home})

    start("cron", "-f", user="root")
    first = gateway()
    machine.run("crontab", "-", user="bub", text=OTHERS)
    # cron tells by whole seconds whether a crontab is new to it.
    written = time.time()
    until(lambda: machine.inside("/run/crond.pid").exists() and time.time() > written + 1.5, "cron up")
    before = machine.run("crontab", "-l", user="bub").stdout
    assert before == OTHERS
    print(said := bub.bub_cron("install", BUB_HOME=bub.home))
    assert "ran crontab -" in said, "without systemd it chooses cron"
    print(after := machine.run("crontab", "-l", user="bub").stdout)
    assert after.startswith(OTHERS)
    assert "already installed" in bub.bub_cron("install", BUB_HOME=bub.home)
    bub.wait_for_gateway(1)
    print("bub", bub.wait_for_message_in_time("the first message"))

    machine.run("sh", "-c", "kill $(cat ~/pid)", user="bub")
    first.wait(PATIENCE)
    gateway()
    bub.wait_for_gateway(2)
    count = len(bub.times())
    print("bub, restarted", bub.wait_for_message_in_time("a message after the restart"))
    assert len(bub.times()) > count

    bub.bub_cron("uninstall", BUB_HOME=bub.home)
    assert machine.run("crontab", "-l", user="bub").stdout == OTHERS


def test_no_crontab_is_no_crontab_again(machine: Machine) -> None:
    bub = Chat(machine, "bub", "/home/bub/.bub")
    bub.bub_cron("install", "--crontab")
    assert machine.run("crontab", "-l", user="bub").stdout.count("\n") == 2
    bub.bub_cron("uninstall")
    assert "no crontab for bub" in machine.run("crontab", "-l", user="bub", check=1).stderr


def test_the_crond_of_busybox(machine: Machine, running: list[subprocess.Popen[bytes]]) -> None:
    """One message, by the line that docs/server.md has for it."""
    applets = (
        subprocess.run(["busybox", "--list"], capture_output=True, text=True).stdout if shutil.which("busybox") else ""
    )
    if "crond" not in applets.splitlines():
        pytest.skip("no busybox with a crond is installed (Debian has it in busybox-static)")
    bub = Chat(machine, "bub", "/home/bub/.bub")
    [line] = re.findall(r"^\* \* \* \* \* BUB_HOME=.*$", (ROOT / "docs" / "server.md").read_text(), re.MULTILINE)
    machine.run("mkdir", "/run/crontabs")
    line = line.replace("/opt/bub/bin", str(SCRIPTS)).replace("/var/lib/bub", bub.home)
    machine.inside("/run/crontabs/bub").write_text(f"{line}\n")
    # What the page says of it: no variables above the line, and a percent sign is one.
    machine.inside("/run/crontabs/alice").write_text('ABOVE=set\n* * * * * echo "$ABOVE 100%" >said\n')
    gateway = [str(SCRIPTS / "bub"), "gateway"]
    bub.bub_cron("tick")  # the first one only looks at the file
    for command, user, also in (
        (gateway, "bub", bub.gateway_environment),
        (["busybox", "crond", "-f", "-l", "0", "-L", "/run/crond.log", "-c", "/run/crontabs"], "root", {}),
    ):
        running.append(subprocess.Popen(machine.command(*command, user=user, also=also), stdin=subprocess.DEVNULL))
    bub.wait_for_gateway(1)
    try:
        until(bub.times, "a message", 90)
    finally:
        print(machine.inside("/run/crond.log").read_text())
    assert machine.inside("/home/alice/said").read_text() == " 100%\n"
