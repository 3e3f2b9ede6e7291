"""Fuzz one parser with atheris, guided by coverage: python tests/fuzz/run.py requests --runs 1000000

The corpus that it starts from, and keeps what it learns in beside, is tests/fuzz/corpus/TARGET; an input that breaks a
promise is written to tests/fuzz/corpus/TARGET/crash-..., fixed in the product, and kept. atheris is not among the
project's development dependencies, since it is not there for every Python: `make fuzz` sets up an environment for it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Parse the arguments and fuzz until the runs are done."""
    import atheris

    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("target", choices=["requests", "reminders", "schedules"])
    arguments.add_argument("--runs", type=int, default=1_000_000)
    arguments.add_argument("--seed", type=int, default=20261123)
    given = arguments.parse_args()

    sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]
    with atheris.instrument_imports(include=["bub_cron"]):
        from fuzz import targets

    corpus = HERE / "corpus" / given.target
    longest = {"requests": 4096, "reminders": 2048, "schedules": 512}[given.target]
    with tempfile.TemporaryDirectory(prefix="bub-cron-fuzz-") as found:  # new inputs: many; a few are kept by hand
        atheris.Setup(
            [
                sys.argv[0],
                found,
                str(corpus),
                f"-dict={HERE / 'corpus' / f'{given.target}.dict'}",
                f"-runs={given.runs}",
                f"-seed={given.seed}",
                f"-max_len={longest}",
                f"-artifact_prefix={corpus}/",
                "-timeout=25",
                "-rss_limit_mb=2048",
                "-print_final_stats=1",
            ],
            targets.TARGETS[given.target],
        )
        atheris.Fuzz()


if __name__ == "__main__":
    main()
