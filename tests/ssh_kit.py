"""An sshd of a test's own on loopback, with its keys and files in a directory; nothing of the machine's ssh is used."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from gateway_kit import PATIENCE, until
from machine_kit import ROOT

SSH = ROOT / "examples" / "ssh"
SSHD = shutil.which("sshd") or "/usr/sbin/sshd"


def need_sshd() -> None:
    """Skip the test where sshd isn't installed; fail it where BUB_CRON_REQUIRE_REAL says that it has to run."""
    if not Path(SSHD).exists() or shutil.which("ssh") is None:
        reason = "this runs for real, and needs sshd and ssh"
        if os.environ.get("BUB_CRON_REQUIRE_REAL"):
            pytest.fail(f"BUB_CRON_REQUIRE_REAL is set, but {reason}")
        pytest.skip(reason)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def make_key(path: Path) -> str:
    """Make a key without a passphrase, and return its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True, stdin=subprocess.DEVNULL)
    return path.with_suffix(".pub").read_text().strip()


def key_line(public: str, path: str | Path = "/bub/cron/cron.sock") -> str:
    """Return the line of the example's authorized_keys, with a real key and the socket's path in their places."""
    [line] = [line for line in (SSH / "authorized_keys").read_text().splitlines() if not line.startswith("#")]
    options, _ = line.split(" ssh-ed25519 ")
    return f"{options.replace('/bub/cron/cron.sock', str(path))} {public.strip()}\n"


def block() -> list[str]:
    """Return what stands in the Match block of the example's sshd.conf."""
    _, found = (SSH / "sshd.conf").read_text().split("Match User bub\n")
    return [line.strip() for line in found.splitlines() if not line.strip().startswith("#")]


def with_values(config: str, **values: str) -> str:
    """Return a configuration of ssh with other values for some of its keywords, each of which it has once."""
    for keyword, value in values.items():
        config, count = re.subn(rf"(?m)^(\s*){keyword} .*$", rf"\g<1>{keyword} {value}", config)
        assert count == 1, keyword
    return config


class Sshd:
    """One sshd process, whose only users are those with a key in `keys`."""

    def __init__(self, directory: Path, keys: str, more: Iterable[str] = (), by: Sequence[str] = ()) -> None:
        """Start it by the program `by`, and wait until it listens."""
        directory.mkdir(mode=0o700)
        self.port = free_port()
        self.known_hosts = directory / "known_hosts"
        host_key = make_key(directory / "host_key")
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {host_key}\n")
        (directory / "authorized_keys").write_text(keys)
        self.log = directory / "log"
        (directory / "config").write_text(
            "\n".join([
                "ListenAddress 127.0.0.1", f"Port {self.port}", f"HostKey {directory}/host_key", "PidFile none",
                "PasswordAuthentication no", "KbdInteractiveAuthentication no", "PermitRootLogin prohibit-password",
                "StrictModes no", "LogLevel VERBOSE", "Subsystem sftp internal-sftp", *more, f"AuthorizedKeysFile {directory}/authorized_keys", "",
            ])
        )  # fmt: skip
        # Root's sshd wants /run/sshd, which is the system's own to make.
        own_run = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /run; mkdir /run/sshd; exec "$@"', "sh"]
        by = by or (own_run if os.geteuid() == 0 else [])
        with self.log.open("wb") as log:
            command = [*by, SSHD, "-D", "-e", "-f", str(directory / "config")]
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        until(self._listens, "sshd")

    def _listens(self) -> bool:
        assert self._process.poll() is None, f"sshd ended: {self.log.read_text()}"
        return "Server listening" in self.log.read_text()

    def close(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
