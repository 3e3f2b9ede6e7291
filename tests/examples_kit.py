"""How much the tests try: enough for a usual run, or all of it (THOROUGH=1 in the environment)."""

from __future__ import annotations

import os

THOROUGH = bool(os.environ.get("THOROUGH"))


def up_to(count: int) -> int:
    """Return how many examples to try: a sixth of `count` in a usual run."""
    return count if THOROUGH else count // 6
