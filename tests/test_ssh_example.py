"""The gateway on one host and the tick on another, as in examples/ssh: a real sshd, a real ssh, a real gateway."""

from __future__ import annotations

import getpass
import json
import os
import signal
import socket
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from conftest import Live
from gateway_kit import PATIENCE, SCRIPTS, House, until
from ssh_kit import SSH, Sshd, block, free_port, key_line, make_key, need_sshd, with_values


def client_config(sshd: Sshd, key: Path) -> str:
    """Return the example's tunnel.conf with the places of this test, and nothing forwarded yet."""
    text = with_values(
        (SSH / "tunnel.conf").read_text(),
        HostName="127.0.0.1",
        User=getpass.getuser(),
        IdentityFile=str(key),
        UserKnownHostsFile=str(sshd.known_hosts),
        LocalForward="",
    )
    return f"{text.replace('    LocalForward \n', '')}    Port {sshd.port}\n"


class TickHost:
    """The tick's host: a state, a file and an end of the tunnel of its own."""

    def __init__(self, house: House, name: str = "there") -> None:
        self.house = house
        self.home = house.home / name
        self.home.mkdir(mode=0o700)
        self.socket = self.home / "cron.sock"
        self.environment = {
            "BUB_HOME": str(self.home),
            "BUB_CRON_FILE": str(self.home / "reminders.yaml"),
            "BUB_CRON_SOCKET": str(self.socket),
        }
        self._tunnels: list[subprocess.Popen[bytes]] = []

    def config(self, sshd: Sshd, key: Path) -> Path:
        """Write the example's tunnel.conf with the places of this test."""
        written = self.home / "tunnel.conf"
        written.write_text(f"{client_config(sshd, key)}    LocalForward {self.socket} {self.house.socket}\n")
        return written

    def tunnel(self, config: Path) -> subprocess.Popen[bytes]:
        """Start what the unit's ExecStart= starts; return once the socket is there."""
        [line] = [line for line in (SSH / "bub-tunnel.service").read_text().splitlines() if "ExecStart=" in line]
        words = line.removeprefix("ExecStart=").replace("/etc/bub/tunnel.conf", str(config)).split()
        until(lambda: not listens(self.socket), "the former tunnel's end")
        started = subprocess.Popen(words, stdin=subprocess.DEVNULL)
        self._tunnels.append(started)
        until(lambda: listens(self.socket), "the forwarded socket")
        return started

    def write_due(self, **reminders: str) -> None:
        self.house.write_due(reminders, **self.environment)

    def tick(self, check: int) -> str:
        return self.house.command("tick", check=check, **self.environment).stderr

    def outcome(self, reminder: str) -> str:
        """Return what the ledger knows of the reminder's one firing."""
        [line] = self.house.command("log", reminder, "--json", check=0, **self.environment).stdout.splitlines()
        return str(json.loads(line)["outcome"])

    def submitted(self, reminder: str) -> bool:
        """Tell whether the ledger has marked the reminder's firing as one that the gateway may have."""
        with closing(sqlite3.connect(f"file:{self.home}/cron/ledger.db?mode=ro", uri=True)) as ledger:
            question = "SELECT 1 FROM firings WHERE reminder = ? AND submitted_at IS NOT NULL"
            return ledger.execute(question, (reminder,)).fetchone() is not None

    def close(self) -> None:
        for started in self._tunnels:
            started.kill()
            started.wait(PATIENCE)


def listens(path: Path) -> bool:
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        return probe.connect_ex(str(path)) == 0


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_sshd()
    path = tmp_path_factory.mktemp("key") / "tunnel-key"
    make_key(path)
    return path


@contextmanager
def an_sshd(house: House, key: Path, *, with_block: bool = True) -> Iterator[Sshd]:
    """Run one with the key's line and the example's Match block, but for what needs root."""
    of_root = ("ChrootDirectory", "AuthorizedKeysFile")
    lines = [line for line in block() if not line.startswith(of_root)] if with_block else []
    line = key_line(key.with_suffix(".pub").read_text(), house.socket)
    with tempfile.TemporaryDirectory() as directory:
        sshd = Sshd(Path(directory) / "sshd", line, lines)
        try:
            yield sshd
        finally:
            print(sshd.log.read_text())
            sshd.close()


@contextmanager
def hosts(house: House, *names: str) -> Iterator[list[TickHost]]:
    made = [TickHost(house, name) for name in names]
    try:
        yield made
    finally:
        for host in made:
            host.close()


def text(said: str, chat: str = "1") -> str:
    return f"to: 'testchat:{chat}', text: {said}"


def test_a_tick_over_the_forwarded_socket_and_one_that_is_cut_off(house: House, key: Path) -> None:
    gateway = house.gateway()
    with an_sshd(house, key) as sshd, hosts(house, "there") as [there]:
        config = there.config(sshd, key)
        first = there.tunnel(config)
        assert oct(there.socket.stat().st_mode & 0o777) == "0o600"
        there.write_due(one=text("First."))
        assert there.tick(check=0) == ""
        until(lambda: list(house.outcomes().values()) == ["delivered"], "the outcome, on the gateway's host")
        assert house.messages_to("1") == ["First."]

        # The connection breaks when the gateway may have the firing and hasn't answered.
        gateway.process.send_signal(signal.SIGSTOP)
        there.write_due(two=text("Second."))
        environment = {**house.environment, **there.environment}
        with subprocess.Popen([SCRIPTS / "bub-cron", "tick"], env=environment, stderr=subprocess.PIPE) as cut_off:
            until(lambda: there.submitted("two"), "the tick in the middle")
            assert cut_off.poll() is None
            first.kill()
            first.wait(PATIENCE)
            _, said = cut_off.communicate(timeout=PATIENCE)
        assert cut_off.returncode == 69
        assert b"1 due firing waits for it" in said
        gateway.process.send_signal(signal.SIGCONT)
        # A killed ssh leaves its socket behind, at which nobody listens.
        assert "nobody listens" in there.tick(check=69)
        assert there.outcome("two") == "due"

        there.tunnel(config)
        assert there.tick(check=0) == ""
        assert there.outcome("two") == "accepted"
        until(lambda: list(house.outcomes().values()) == ["delivered"] * 2, "the outcome")
        assert house.messages_to("1") == ["First.", "Second."], "each once"

        # The gateway is away, and the tunnel isn't.
        gateway.stop()
        there.write_due(three=text("Third."))
        assert "closed the connection" in there.tick(check=69)
        assert there.outcome("three") == "due"
        house.gateway()
        assert there.tick(check=0) == ""
        until(lambda: house.messages_to("1")[2:] == ["Third."], "the message")


def test_two_hosts_with_a_reminder_of_one_name(live: Live, key: Path) -> None:
    """An id is made of name and fire time: the same content is taken once, other content is rejected."""
    house = live.house
    with an_sshd(house, key) as sshd, hosts(house, "first", "second", "third") as (first, second, third):
        first.tunnel(first.config(sshd, key))
        until(lambda: time.time() % 60 < 45, "time enough for all in one minute")
        for host, said in (first, "From one host."), (second, "From one host."), (third, "From another."):
            host.environment["BUB_CRON_SOCKET"] = str(first.socket)
            host.write_due(one=text(said, "name"))
        first.tick(check=0)
        second.tick(check=0)
        assert "rejected" in third.tick(check=76)
        assert [host.outcome("one") for host in (first, second, third)] == ["accepted", "accepted", "rejected"]
        until(lambda: list(house.outcomes().values()) == ["delivered"], "the outcome")
        assert house.messages_to("name") == ["From one host."]


class Probe:
    """What the key's holder may try, with a client of its own."""

    def __init__(self, house: House, sshd: Sshd, key: Path) -> None:
        self._here = house.home / f"probe-{sshd.port}"
        self._here.mkdir()
        config = self._here / "config"
        config.write_text(client_config(sshd, key))
        self._ssh = ["ssh", "-F", str(config)]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        command = [*self._ssh, *words]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE / 4)

    def reaches(self, path: Path) -> bool:
        """Tell whether a Unix socket there, whose server speaks first, is heard here."""
        local = self._here / "forwarded.sock"
        command = [*self._ssh, "-N", "-L", f"{local}:{path}", "bub-gateway"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as forwarding:
            until(lambda: listens(local), "the forwarded socket")
            with closing(socket.socket(socket.AF_UNIX)) as caller:
                caller.settimeout(PATIENCE)
                caller.connect(str(local))
                caller.sendall(b"?\n")
                try:
                    heard = caller.recv(1000)
                except ConnectionResetError:
                    heard = b""
            forwarding.kill()
        return bool(heard)

    def makes_a_socket(self, path: Path) -> bool:
        """Tell whether it can make a socket there, at which this side would listen."""
        command = [*self._ssh, "-N", "-R", f"{path}:/dev/null", "bub-gateway"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as forwarding:
            until(lambda: path.exists() or forwarding.poll() is not None, "the socket, or its refusal")
            made = path.exists()
            forwarding.kill()
        return made


@pytest.mark.parametrize("with_block", [False, True])
def test_what_the_keys_holder_can_do(live: Live, key: Path, with_block: bool) -> None:
    """The gateway's socket alone; but without the Match block it can also make sockets there."""
    house = live.house
    with an_sshd(house, key, with_block=with_block) as sshd:
        probe = Probe(house, sshd, key)
        ran = probe.run("bub-gateway", "echo", "it ran")
        assert (ran.returncode != 0, ran.stdout) == (True, "")
        assert probe.run("-s", "bub-gateway", "sftp").returncode != 0
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            assert "administratively prohibited" in probe.run("-W", f"127.0.0.1:{port}", "bub-gateway").stderr
            listener = f"127.0.0.1:{free_port()}:127.0.0.1:{port}"
            assert "forwarding failed" in probe.run("-N", "-R", listener, "bub-gateway").stderr
        assert probe.reaches(house.socket)
        os.link(house.socket, other := house.home / f"other-{with_block}.sock")
        assert not probe.reaches(other), "the very same socket by another path"
        assert probe.makes_a_socket(house.home / f"made-{with_block}.sock") is not with_block
