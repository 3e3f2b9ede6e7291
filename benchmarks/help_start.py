"""`bub-cron --help`, and a shell that completes a command and a reminder's name, against the bare interpreter.

In: the whole process. The file has 1,000 reminders, which a tick has read before, as it does each minute. What the first
completion after an edit takes, which reads the file itself, is told below.
"""

from __future__ import annotations

import os

from benchmarks.measure import PYTHON, SCRIPTS, Figure, Spread, in_turn, main, run
from benchmarks.places import Place

COMMAND = str(SCRIPTS / "bub-cron")


def measure(pairs: int = 31, reminders: int = 1000) -> Figure:
    """Compare the CPU of `--help` and of completions with that of `python -I -c pass`: the worst of them counts."""
    with Place() as place:
        place.write(reminders)
        place.tick()

        def completing(words: str, pairs: int = pairs) -> Spread:
            asked = {"_BUB_CRON_COMPLETE": "bash_complete", "COMP_WORDS": f"bub-cron {words}", "COMP_CWORD": "1"}
            asked["COMP_CWORD"] = str(words.count(" ") + 1)
            environment = {**place.environment, **asked}
            return in_turn(bare, lambda: run([COMMAND], environment).cpu, pairs).ratio

        def bare() -> float:
            return run(PYTHON, place.environment).cpu

        found = {
            "`--help`": in_turn(bare, lambda: run([COMMAND, "--help"], place.environment).cpu, pairs).ratio,
            "a command's name": completing("st"),
            "a reminder's name": completing("log reminder-7"),
        }
        os.utime(place.reminders)
        edited = completing("log reminder-7", max(1, pairs // 3))
    worst = max(found, key=lambda name: found[name].median)
    return Figure(
        f"CPU of `bub-cron --help` and of completion, with {reminders:,} reminders",
        "the bare interpreter",
        "at most 8",
        f"{found[worst].text()}, {pairs} pairs ({worst})",
        found[worst].median <= 8,
        (
            *(f"{name}: {ratio.text()}" for name, ratio in found.items() if name != worst),
            f"a reminder's name, the file edited since the last tick: {edited.text()}",
        ),
    )


if __name__ == "__main__":
    main(measure)
