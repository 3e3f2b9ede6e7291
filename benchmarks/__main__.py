"""Every figure, one after the other, as the table of README.md; then how cost grows.

Each is run as its own command is, in a process of its own, so that none inherits another's memory or caches.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time

from benchmarks.measure import HEAD

FIGURES = (
    "idle_tick", "idle_tick_dropins", "idle_tick_10000", "idle_tick_memory", "due_tick", "edited_file", "burst", "ping_in_burst", "which_due",
    "turn_start", "thousand_firings", "idle_gateway", "gateway_memory", "one_firing", "gate_skip", "log_history",
    "listing", "help_start",
)  # fmt: skip


def main() -> None:
    """Print each figure as it comes, then the whole table."""
    began = time.monotonic()
    rows = []
    for name in FIGURES:
        print(f"\n{name}", file=sys.stderr)
        printed = _run(name, "--row")
        row, _, rest = printed.partition("\n")
        print(rest, file=sys.stderr)
        rows.append(row)
    grown = _run("growth")
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.system()} {platform.machine()}, {cores} cores, Python {platform.python_version()}\n")
    print(HEAD, *rows, "", grown, sep="\n")
    print(f"{(time.monotonic() - began) / 60:.0f} minutes", file=sys.stderr)


def _run(name: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", *arguments], stdout=subprocess.PIPE, text=True, check=True
    ).stdout


if __name__ == "__main__":
    main()
