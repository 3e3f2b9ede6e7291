"""cli/unchanged.py: names and fire times are what the files say; where those are unchanged the ledger tells them."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_gateway import Place

from bub_cron.cli.unchanged import names_for_shell, next_times
from bub_cron.paths import find_paths
from bub_cron.reminders import load
from bub_cron.schedule import next_fire_time

NOW = int(time.time())
CODE = """
import sys
from bub_cron.cli.unchanged import names_for_shell, next_times
from bub_cron.paths import find_paths
print(*names_for_shell(find_paths()), "yaml" in sys.modules)
"""


def text(*names: str) -> str:
    entries = "".join(f"  {name}: {{every: 1h, to: 'x:1', text: x}}\n" for name in names)
    return f"reminders:\n{entries}"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    made = Place(tmp_path / "bub")
    made.write(text("b", "a"), NOW - 600)
    monkeypatch.setenv("BUB_HOME", str(made.home))
    return made


def completed() -> list[str]:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_files_that_a_tick_has_read_are_not_read_again(place: Place) -> None:
    assert completed() == ["b", "a", "True"]
    place.tick(NOW)
    assert completed() == ["a", "b", "False"]


def test_an_edit_or_another_drop_in_counts_at_once(place: Place) -> None:
    place.tick(NOW)
    place.write(text("b", "c"), NOW - 300)
    assert completed() == ["b", "c", "True"]
    place.tick(NOW + 60)
    drop_ins = place.home / "reminders.d"
    drop_ins.mkdir()
    (drop_ins / "more.yaml").write_text(text("d"))
    assert completed() == ["b", "c", "d", "True"]


def test_a_ledger_of_another_file_or_with_a_fault_does_not_count(place: Place, tmp_path: Path) -> None:
    place.tick(NOW)
    other = tmp_path / "other.yaml"
    other.write_text(text("z"))
    assert names_for_shell(find_paths(file=str(other))) == ["z"]
    place.write("reminders: [", NOW - 100)
    place.tick(NOW + 60)
    assert names_for_shell(place.paths) == ["a", "b"], "the last good ones"


def test_next_times_are_those_that_the_files_give(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    assert next_times(place.paths) == {}
    entries = (
        "  a: {cron: '7 9 * * mon', to: 'x:1', text: x}\n  spare: {every: 1h, to: 'x:1', text: x, enabled: false}\n"
    )
    place.write(f"reminders:\n{entries}  old: {{at: 2020-01-01 08:00, to: 'x:1', text: x}}\n", NOW - 600)
    place.tick(NOW)
    (one, *_) = load(place.paths.file)
    assert next_times(place.paths) == {"a": next_fire_time(one.schedule, NOW)}
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert next_times(place.paths) == {}, "the machine's zone is another one here"
    monkeypatch.delenv("TZ")
    place.write(f"reminders:\n{entries}", NOW - 500)
    assert next_times(place.paths) == {}
