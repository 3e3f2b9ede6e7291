"""How many examples the tests by examples try."""

from __future__ import annotations

import os


def up_to(count: int) -> int:
    """Return a quarter of `count`, so that a usual run is short; all of it with THOROUGH=1 in the environment."""
    return count if os.environ.get("THOROUGH") else count // 4
