"""`bub-cron metrics`: what status tells as numbers, read back by Prometheus' own parsers, of both of its formats."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from fake_gateway import Place, firing
from health_kit import NOON, answering, healthy, record
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from bub_cron.cli import commands
from bub_cron.health.metrics import metrics
from bub_cron.health.status import look

ROOT = Path(__file__).parent.parent
FILE = """\
defaults: {to: 'telegram:1', timezone: UTC}
reminders:
  pills: {every: 1h, text: Time for your pills.}
  asleep: {every: 1h, text: x, enabled: false}
  held: {every: 1h, text: x, pause_until: 2037-01-01}
"""

type Values = dict[str, float | dict[tuple[str, ...], float]]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return healthy(tmp_path / "bub")


def values(place: Place) -> Values:
    """Return each gauge's value; where it has labels, its values by theirs."""
    text = metrics(place.paths, look(place.paths, NOON)).decode()
    found: Values = {}
    for family in parse_openmetrics(text):
        assert family.type == "gauge"
        for sample in family.samples:
            name = sample.name.removeprefix("bub_cron_")
            if sample.labels:
                labelled = found.setdefault(name, {})
                assert isinstance(labelled, dict)
                labelled[tuple(sample.labels.values())] = sample.value
            else:
                found[name] = sample.value
    older = {s.name: s.value for family in parse_text(text) for s in family.samples if not s.labels}
    assert older == {f"bub_cron_{name}": value for name, value in found.items() if not isinstance(value, dict)}
    return found


def delivered(place: Place, fire_time: str, finished_at: float, state: str = "delivered") -> None:
    place.fill_inbox(
        id=firing("pills", fire_time), reminder="pills", fire_time=f"{fire_time}Z", accepted_at=finished_at - 2,
        state=state, finished_at=finished_at, error="a secret error", reply="a secret reply",
    )  # fmt: skip


def test_where_all_is_well(place: Place) -> None:
    place.write(FILE, NOON - 120)
    delivered(place, "2026-11-23T10:00:00", NOON - 7190)
    delivered(place, "2026-11-23T11:00:00", NOON - 3590)
    with place.gateway(answering(waiting=3, running=1)):
        found = values(place)
    assert found == {
        "gateway_up": 1,
        "gateway_ready": 1,
        "gateway_waiting_firings": 3,
        "gateway_running_firings": 1,
        "stores_readable": 1,
        "last_tick_timestamp_seconds": NOON - 60,
        "due_firings": 0,
        "faulty_files": 0,
        "reminders": 3,
        "enabled_reminders": 2,
        "paused_reminders": 1,
        "last_day_firings": {("delivered",): 2},
        "reminder_last_outcome": {("delivered", "pills"): 1},
        "reminder_last_good_timestamp_seconds": {("pills",): NOON - 3590},
        "reminder_next_fire_timestamp_seconds": {("pills",): NOON + 3600, ("held",): 2114380800},
        "needs_fixing": 0,
    }


def test_a_reminder_that_fails_keeps_when_it_last_worked(place: Place) -> None:
    delivered(place, "2026-11-23T10:00:00", NOON - 7190)
    delivered(place, "2026-11-23T11:00:00", NOON - 3590, state="failed")
    with place.gateway(answering()):
        found = values(place)
    assert found["reminder_last_outcome"] == {("failed", "pills"): 1}
    assert found["reminder_last_good_timestamp_seconds"] == {("pills",): NOON - 7190}
    assert found["last_day_firings"] == {("delivered",): 1, ("failed",): 1}
    assert found["needs_fixing"] == 1


def test_what_the_ledger_ended_counts(place: Place) -> None:
    record(place, NOON - 3600)
    with place.gateway(answering(ready=False, why="no channel", since="2026-11-23T09:00:00Z")):
        found = values(place)
    assert found["reminder_last_outcome"] == {("missed", "pills"): 1}
    assert "reminder_last_good_timestamp_seconds" not in found
    assert (found["gateway_up"], found["gateway_ready"]) == (1, 0)


def test_without_a_gateway_a_file_and_a_store(place: Place) -> None:
    place.write("reminders: [", NOON)
    (place.home / "reminders.d").mkdir()
    (place.home / "reminders.d" / "more.yaml").write_text("reminders: {a: {}}\n")
    Path(place.paths.ledger).write_bytes(b"no store" * 100)
    found = values(place)
    assert found == {"gateway_up": 0, "faulty_files": 2, "needs_fixing": found["needs_fixing"], "stores_readable": 0}
    assert found["needs_fixing"] == len(look(place.paths, NOON).attention) >= 4
    os.unlink(place.paths.file)
    (place.home / "reminders.d" / "more.yaml").unlink()
    assert values(place)["faulty_files"] == 0  # missing, not faulty


def test_no_text_is_told(place: Place) -> None:
    delivered(place, "2026-11-23T11:00:00", NOON - 3590, state="failed")
    text = metrics(place.paths, look(place.paths, NOON)).decode()
    assert "secret" not in text
    assert "Time for your pills" not in text
    assert "telegram" not in text


def test_the_command_exits_with_0_also_where_something_is_broken(place: Place) -> None:
    done = CliRunner().invoke(commands, ["metrics"], env=place.environ)
    assert done.exit_code == 0
    assert "\nbub_cron_gateway_up 0.0\n" in done.stdout
    assert done.stdout.endswith("# EOF\n")


def test_without_the_library_it_says_how_to_install_it(place: Place) -> None:
    script = "import sys; sys.modules['prometheus_client.core'] = None; from bub_cron.cli import commands; commands(['metrics'])"
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **place.environ}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr == (
        "bub-cron: this command needs the library prometheus_client: run "
        f"`{sys.executable} -m pip install prometheus-client`\n"
    )


def test_the_example_writes_the_file_whole_or_not_at_all(place: Place, tmp_path: Path) -> None:
    """What the unit runs, run by hand; `$$` is systemd's own for `$`."""
    unit = (ROOT / "systemd" / "metrics" / "bub-cron-metrics.service").read_text()
    (line,) = (line for line in unit.splitlines() if line.startswith("ExecStart="))
    shell = line.partition("-c '")[2].removesuffix("'").replace("$$", "$")
    there = tmp_path / "textfile"
    there.mkdir()
    environ = {**place.environ, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "DIR": str(there)}
    assert subprocess.run(["/bin/sh", "-c", shell], env=environ, timeout=60).returncode == 0
    assert [path.name for path in there.iterdir()] == ["bub-cron.prom"]
    former = (there / "bub-cron.prom").read_text()
    assert former.endswith("# EOF\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bub-cron").write_text("#!/bin/sh\necho half of it\nexit 69\n")
    (tmp_path / "bin" / "bub-cron").chmod(0o755)
    environ["PATH"] = f"{tmp_path / 'bin'}:/usr/bin:/bin"
    assert subprocess.run(["/bin/sh", "-c", shell], env=environ, timeout=60).returncode == 69
    assert (there / "bub-cron.prom").read_text() == former
