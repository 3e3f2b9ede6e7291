"""Each benchmark's command, at sizes that say nothing about cost: it runs, and prints its figure. Nothing here is timed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import FIGURES
from benchmarks.measure import Pairs, Spread, in_turn

ROOT = Path(__file__).parent.parent
SMALL = {
    "idle_tick": ("--pairs", "1"),
    "idle_tick_dropins": ("--pairs", "1", "--drop-ins", "2"),
    "idle_tick_10000": ("--pairs", "1", "--reminders", "20"),
    "idle_tick_memory": ("--pairs", "1"),
    "due_tick": ("--pairs", "1"),
    "edited_file": ("--pairs", "1", "--reminders", "20"),
    "burst": ("--pairs", "1", "--held-pairs", "0", "--firings", "20"),
    "ping_in_burst": ("--pairs", "1", "--firings", "20", "--idle-seconds", "0.1"),
    "which_due": ("--pairs", "1", "--reminders", "20", "--asked", "1"),
    "turn_start": ("--pairs", "1"),
    "thousand_firings": ("--pairs", "1", "--hook-pairs", "0", "--firings", "4"),
    "idle_gateway": ("--pairs", "1", "--seconds", "0.1"),
    "gateway_memory": ("--pairs", "1"),
    "one_firing": ("--pairs", "1"),
    "gate_skip": ("--pairs", "1", "--firings", "4"),
    "log_history": ("--pairs", "1", "--firings", "200"),
    "listing": ("--pairs", "1", "--reminders", "20"),
    "help_start": ("--pairs", "1", "--reminders", "20"),
}


def _run(name: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments],
        cwd=ROOT, env={**os.environ, "BENCH_SETTLE_SECONDS": "0"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_figure_is_tried_here() -> None:
    assert set(SMALL) == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_a_figures_command_prints_it_and_its_row(name: str) -> None:
    row, *lines = _run(name, *SMALL[name], "--row").splitlines()
    assert row.count(" | ") == 4
    assert [line.split()[0] for line in lines[1:5]] == ["against", "to", "found", "so"]
    assert lines[0] in row


def test_growth_prints_the_tables_that_it_is_asked_for() -> None:
    printed = _run("growth", "--repeats", "1", "--scale", "0.01", "--only", "reminders,firings,history", "--sizes", "1")
    tables = [table.splitlines() for table in printed.strip().split("\n\n")]
    assert [table[0] for table in tables] == [
        "| reminders in the file | 1 |",
        "| firings in one minute | 1 |",
        "| rows of history, in each store | 100 |",
    ]
    assert {row.count("|") for table in tables for row in table} == {3}


def test_baseline_and_ours_are_measured_in_turn() -> None:
    order: list[str] = []

    def measure(name: str, seconds: float) -> float:
        order.append(name)
        return seconds

    found = in_turn(lambda: measure("baseline", 2.0), lambda: measure("ours", 3.0), 3)
    assert order == ["baseline", "ours"] * 4  # the first pair is to warm up
    assert found == Pairs((2.0, 2.0, 2.0), (3.0, 3.0, 3.0))
    assert (found.ratio, found.difference) == (Spread(1.5, 1.5, 1.5, 3), Spread(1.0, 1.0, 1.0, 3))


def test_a_spread_is_the_median_between_its_quartiles() -> None:
    assert Spread.of([5.0, 1.0, 2.0, 3.0, 4.0]) == Spread(2.0, 3.0, 4.0, 5)
    assert Spread.of([0.0012]).text(" ms", 1, 1000) == "1.2 ms (1.2 to 1.2)"
