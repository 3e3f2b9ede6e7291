"""Measure pair by pair, and say what came of it.

Invariants: the baseline and what is compared with it are measured in turn, in the same run, so that whatever else the
machine does meanwhile meets both; a figure is the median of the pairs' ratios (or differences), told with its quartiles.
CPU is user and system time together, memory is what the kernel calls maximum resident set size.
"""

from __future__ import annotations

import argparse
import inspect
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPTS = Path(sys.executable).parent
LAUNCHER = Path(__file__).with_name("launcher.py")
PYTHON = [sys.executable, "-I", "-c", "pass"]  # the baseline of most: starting the interpreter, and nothing else


@dataclass(frozen=True)
class Usage:
    """What one command used."""

    cpu: float  # seconds, user and system
    peak_kib: int


def run(command: Sequence[str], environment: Mapping[str, str], *, expect: int = 0) -> Usage:
    """Run a command to its end and return what it used; RuntimeError unless it exits with `expect`."""
    read, write = os.pipe()
    with os.fdopen(read) as told:
        # The launcher's file descriptor 3 is the pipe, whatever number it has here.
        launch = ["/bin/sh", "-c", f'exec "$@" 3>&{write}', "sh", sys.executable, "-I", "-S", str(LAUNCHER), *command]
        done = subprocess.run(
            launch, env=dict(environment), pass_fds=[write], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        os.close(write)
        cpu, peak, status = told.readline().split()
    if os.waitstatus_to_exitcode(int(status)) != expect:
        raise RuntimeError(f"{command} ended with {status}: {(done.stdout + done.stderr).decode()[-2000:]}")
    return Usage(float(cpu), int(peak))


def floor_kib() -> int:
    """Return the least peak memory that `run` can tell: that of a command which needs next to none."""
    return run(["/bin/true"], {}).peak_kib


def cpu_of(process: int) -> float:
    """Return the seconds of CPU that another process has used, all its threads together, to the nanosecond."""
    return time.clock_gettime(~process << 3 | 2)  # as clock_getcpuclockid(3) makes it


@dataclass(frozen=True)
class Spread:
    """The middle of some values, and the quartiles around it."""

    low: float
    median: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        return cls(low, statistics.median(values), high, len(values))

    def text(self, unit: str = "", digits: int = 2, scale: float = 1) -> str:
        """Return `median unit (low to high)`."""
        low, median, high = (f"{value * scale:,.{digits}f}" for value in (self.low, self.median, self.high))
        return f"{median}{unit} ({low} to {high})"


@dataclass(frozen=True)
class Pairs:
    """What was measured in turn: the baseline's values and ours."""

    baseline: tuple[float, ...]
    ours: tuple[float, ...]

    @property
    def ratio(self) -> Spread:
        return Spread.of([ours / base for base, ours in zip(self.baseline, self.ours, strict=True)])

    @property
    def difference(self) -> Spread:
        return Spread.of(self.differences)

    @property
    def differences(self) -> list[float]:
        return [ours - base for base, ours in zip(self.baseline, self.ours, strict=True)]


def in_turn(baseline: Callable[[], float], ours: Callable[[], float], pairs: int, *, warm_up: bool = True) -> Pairs:
    """Measure baseline, ours, baseline, ours, ...; with `warm_up`, once each before, which doesn't count.

    A single pair, as the tests take it, isn't warmed up for.
    """
    if warm_up and pairs > 1:
        baseline(), ours()
    values = [(baseline(), ours()) for _ in range(pairs)]
    return Pairs(tuple(base for base, _ in values), tuple(own for _, own in values))


@dataclass(frozen=True)
class Figure:
    """One line of the table. `notes` are what belongs to it and doesn't fit there."""

    name: str
    baseline: str
    target: str
    found: str
    reached: bool
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Return it as a command prints it."""
        verdict = "reached" if self.reached else "NOT REACHED"
        lines = [
            self.name,
            f"  against    {self.baseline}",
            f"  to reach   {self.target}",
            f"  found      {self.found}",
        ]
        return "\n".join([*lines, f"  so         {verdict}", *(f"  also       {note}" for note in self.notes)])

    def row(self) -> str:
        """Return it as a row of the table."""
        verdict = "yes" if self.reached else "**no**"
        return f"| {self.name} | {self.baseline} | {self.target} | {self.found} | {verdict} |"


HEAD = "| figure | against | to reach | found: median (quartiles) | reached |\n|---|---|---|---|---|"


def main(measure: Callable[..., Figure | str]) -> None:
    """Be the command of a figure: each parameter of `measure` is an option."""
    parser = argparse.ArgumentParser(description=inspect.getdoc(measure))
    for parameter in inspect.signature(measure).parameters.values():
        name = "--" + parameter.name.replace("_", "-")
        parser.add_argument(
            name, type=type(parameter.default), default=parameter.default, help="%(default)s if not given"
        )
    parser.add_argument("--row", action="store_true", help="print it as a row of the table before")
    options: dict[str, Any] = vars(parser.parse_args())
    with_row = options.pop("row")
    found = measure(**options)
    if isinstance(found, Figure) and with_row:
        print(found.row())
    print(found if isinstance(found, str) else found.text())
