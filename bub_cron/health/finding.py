"""What doctor says of one link of the chain."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARNING, BROKEN = "ok", "warning", "broken"
# That a remedy which is a sentence begins with.
_VERBS = frozenset({"add", "do", "give", "install", "let", "look", "restart", "run", "see", "take", "upgrade", "what"})


@dataclass(slots=True)
class Finding:
    """One link and how it stands; `remedy` is a command, or what to do, for one that isn't ok."""

    link: str
    state: str
    text: str
    remedy: str = ""

    @property
    def is_command(self) -> bool:
        """Whether the remedy is to be typed as it stands; else it is a sentence."""
        return self.remedy.partition(" ")[0] not in _VERBS
