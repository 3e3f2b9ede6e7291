"""docs/server.md: its commands for backup and restore, as printed, and what it says happens after them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
from fake_gateway import Place, at, firing, insert

PAGE = (Path(__file__).parent.parent / "docs" / "server.md").read_text()
NINE = at("2026-12-01T09:00:00")
MINUTE = 60
FILE = """\
defaults: {to: 'telegram:1', timezone: UTC}
reminders:
  early: {cron: "1 9 * * *", text: x}
  late: {cron: "3 9 * * *", text: x}
  last: {cron: "5 9 * * *", text: x}
"""
EARLY, LATE, LAST = (
    firing(name, f"2026-12-01T09:0{minute}:00") for name, minute in {"early": 1, "late": 3, "last": 5}.items()
)


def run(section: str, home: Path) -> None:
    """Run the commands of a section, as printed, in a shell."""
    [block] = re.findall(
        r"```console\n(.*?)```", PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0], re.DOTALL
    )
    script = "\n".join(line.removeprefix("$ ") for line in block.splitlines())
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    subprocess.run(["sh", "-e", "-c", script], env={"HOME": str(home), "PATH": path}, check=True, timeout=60)


class House(NamedTuple):
    """What took `early` at 9:01, was backed up, and took `late` at 9:03; its gateway has stopped.

    `known` is what the gateway's inbox holds: id -> content.
    """

    place: Place
    known: dict[str, str]

    def tick(self, minute: int, *known: str) -> list[str]:
        """Run a tick beside a gateway that knows these firings; return those that it takes for new."""
        with self.place.gateway() as gateway:
            gateway.inbox = {one: self.known[one] for one in known}
            assert self.place.tick(NINE + minute * MINUTE)[0] == 0
            self.known.update(gateway.inbox)
        return [one for one in gateway.taken if one not in known]


@pytest.fixture
def house(tmp_path: Path) -> House:
    made = House(Place(tmp_path / ".bub"), {})
    made.place.write(FILE, NINE - MINUTE)
    (made.place.home / "reminders.d").mkdir(mode=0o700)
    with closing(made.place.open_inbox()) as inbox:  # it is in use
        assert [made.tick(minute) for minute in range(2)] == [[], [EARLY]]
        insert(inbox, id=EARLY, state="delivered")
        run("Backup", tmp_path)
        assert made.tick(3, EARLY) == [LATE]
        insert(inbox, id=LATE, state="delivered")
    return made


@pytest.fixture
def restored(house: House) -> House:
    run("Restore", house.place.home.parent)
    return house


def test_a_backup_holds_whole_stores_that_are_the_owners_alone(restored: House) -> None:
    place = restored.place
    assert place.states() == {EARLY: "accepted"}
    with closing(place.open_inbox()) as inbox:
        assert [row["id"] for row in inbox.execute("SELECT id FROM firings")] == [EARLY]
    for path in (place.paths.ledger, place.paths.inbox):
        assert os.stat(path).st_mode & 0o077 == 0


def test_with_both_stores_restored_what_fired_since_then_fires_again(restored: House) -> None:
    assert restored.tick(4, EARLY) == [LATE]


def test_beside_a_newer_inbox_nothing_runs_twice(restored: House) -> None:
    assert restored.tick(4, EARLY, LATE) == []
    assert restored.place.states() == {EARLY: "accepted", LATE: "accepted"}


def test_what_an_older_inbox_does_not_know_ends_unknown(house: House) -> None:
    assert house.tick(5, EARLY) == [LAST]
    assert (house.place.states()[LATE], house.place.reason(LATE)) == ("unknown", "lost_record")


def test_without_a_ledger_nothing_from_before_fires(house: House) -> None:
    os.unlink(house.place.paths.ledger)
    assert house.tick(4) == []
    assert house.place.states() == {}
