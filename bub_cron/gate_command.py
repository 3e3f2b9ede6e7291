"""How a gate is run, by the gateway and by hand: its arguments, its environment, how much of its output counts.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

MOST_OUTPUT = 16 * 1024  # bytes


def arguments(run: str | list[str]) -> list[str]:
    """Return the arguments of a gate's `run`: a shell line, or a program with its arguments and no shell."""
    return ["/bin/sh", "-c", run] if isinstance(run, str) else list(run)


def environment(environ: Mapping[str, str], reminder: str | None, fire_time: str | None) -> dict[str, str]:
    """Return the environment of a gate, of which `environ` gives PATH, HOME and LANG alone."""
    kept = {name: environ[name] for name in ("PATH", "HOME", "LANG") if name in environ}
    return {**kept, "BUB_CRON_REMINDER": reminder or "", "BUB_CRON_FIRE_TIME": fire_time or ""}
