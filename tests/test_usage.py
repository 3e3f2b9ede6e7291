"""usage and gate: what a reminder took, and whether it would run."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = (sys.executable, "-m", "bub_cron")


def environment(home: Path) -> dict[str, str]:
    return {"BUB_HOME": str(home), "PATH": "/usr/bin:/bin", "COLUMNS": "80", "TZ": "UTC"}


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *arguments]
    return subprocess.run(command, env=environment(home), capture_output=True, text=True, timeout=60, check=False)


def write(home: Path, gate: str) -> None:
    head = "reminders:\n  mail:\n    every: 30m\n    to: x:1\n    prompt: hi\n"
    (home / "reminders.yaml").write_text(
        f"{head}    gate: {gate}\n  bare:\n    every: 30m\n    to: x:1\n    text: hi\n"
    )


@pytest.mark.parametrize(
    ("gate", "status", "output", "said"),
    [
        ("echo one; echo two >&2", 0, "one\n", "two\n0: the reminder would run, with this output\n"),
        ("exit 1", 1, "", "1: the reminder would be skipped\n"),
        ("exit 3", 3, "", "3: neither 0 (run) nor 1 (skip), so a failed attempt\n"),
        ("kill -9 $$", 137, "", "137: neither 0 (run) nor 1 (skip), so a failed attempt\n"),
        ("[/nosuch]", 126, "", "the gate can't be started: "),
        (
            "{run: sleep 600, timeout: 1s}",
            124,
            "",
            "the gate did not end within 1 s, so it was ended: a failed attempt\n",
        ),
        ("echo $BUB_CRON_REMINDER", 0, "mail\n", "0: "),
        ("{run: sleep 600 & echo left behind, timeout: 5s}", 0, "left behind\n", "0: "),
    ],
)
def test_a_gate_by_hand(tmp_path: Path, gate: str, status: int, output: str, said: str) -> None:
    write(tmp_path, gate)
    done = run(tmp_path, "gate", "mail")
    assert (done.returncode, done.stdout) == (status, output)
    assert done.stderr.startswith(said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_gate_too(tmp_path: Path, number: signal.Signals) -> None:
    write(tmp_path, f"echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 600")
    with subprocess.Popen([*COMMAND, "gate", "mail"], env=environment(tmp_path), stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "pid").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode in (128 + number, 1)  # click's word for an interrupt is 1
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists()


def test_nohup_keeps_the_gate_from_a_hangup(tmp_path: Path) -> None:
    write(tmp_path, f"touch {tmp_path}/begun; while [ ! -e {tmp_path}/go ]; do sleep 0.02; done; echo done")
    command = ["/bin/sh", "-c", 'trap "" HUP; exec "$@"', "nohup", *COMMAND, "gate", "mail"]
    with subprocess.Popen(command, env=environment(tmp_path), stdout=subprocess.PIPE) as process:
        deadline = time.monotonic() + 60
        while not (tmp_path / "begun").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGHUP)
        (tmp_path / "go").touch()
        assert process.communicate(timeout=60)[0] == b"done\n"
    assert process.returncode == 0


def test_a_reminder_without_a_gate(tmp_path: Path) -> None:
    write(tmp_path, "'true'")
    assert run(tmp_path, "gate", "bare").returncode == 2
    missing = run(tmp_path, "gate", "mial")
    assert (missing.returncode, missing.stderr) == (1, "bub-cron: there is no reminder mial; did you mean mail?\n")


def test_usage_counts_what_the_stores_know(tmp_path: Path) -> None:
    assert run(tmp_path, "usage").stderr == "nothing has fired in the last 30 days\n"
    (tmp_path / "reminders.yaml").write_text("reminders: {a: {cron: '* * * * *', to: 'x:1', text: hi, grace: 1s}}\n")
    for minutes in (10, 0):
        script = f"import sys; from bub_cron.trigger import tick; from bub_cron.paths import find_paths; sys.exit(tick.run(find_paths(), {int(time.time()) - 60 * minutes}))"
        environ = {"BUB_HOME": str(tmp_path), "TZ": "UTC"}
        subprocess.run([sys.executable, "-c", script], env=environ, check=False, capture_output=True, timeout=60)
    (line,) = run(tmp_path, "usage", "--json").stdout.splitlines()
    found = json.loads(line)
    assert set(found) == {"reminder", "firings", "tokens", "seconds", "outcomes"}
    assert (found["reminder"], found["tokens"], found["seconds"]) == ("a", 0, 0)
    assert found["outcomes"]["missed"] >= 9
    assert sum(found["outcomes"].values()) == found["firings"]
    table = run(tmp_path, "usage").stdout
    assert "missed" in table
    assert max(map(len, table.splitlines())) <= 80
