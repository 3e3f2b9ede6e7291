"""What doctor says of one link of the chain."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, BROKEN = "ok", "warning", "broken"


@dataclass(slots=True)
class Finding:
    """One link and how it stands; `remedy` is a command, or what to do, for one that isn't ok."""

    link: str
    state: str
    text: str
    remedy: str = ""
