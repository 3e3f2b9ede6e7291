"""Start Bub as its console script does; with BENCH_WITHOUT_CRON in the environment, without bub-cron.

bub-cron is installed, so the one way to have a gateway without it, in the same environment, is to leave its entry point
out of those that Bub is told of. Nothing of it is imported then.
"""

import importlib.metadata
import os
from typing import Any

if "BENCH_WITHOUT_CRON" in os.environ:
    all_entry_points = importlib.metadata.entry_points

    def entry_points(**wanted: Any) -> importlib.metadata.EntryPoints:
        return importlib.metadata.EntryPoints(
            entry for entry in all_entry_points(**wanted) if not entry.value.startswith("bub_cron.")
        )

    importlib.metadata.entry_points = entry_points

from bub.__main__ import app

app()
