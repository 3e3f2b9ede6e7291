"""What bub-cron costs: a module per figure, each a command (`python -m benchmarks.idle_tick`), and all of them at once
(`python -m benchmarks`, or `make bench`)."""

import sys
from pathlib import Path

# The stand-in for a model is the demo's.
sys.path.append(str(Path(__file__).parent.parent / "examples" / "demo"))
