"""The chats that have written to this gateway, as `to:` takes them: what `bub-cron chats` lists.

Invariants:
- To note a message looks up a dictionary, and neither waits nor raises: it is in the way of every message.
- The newest `MOST` chats are kept. They outlive a restart, but for what was seen since the last write; a chat's row is
  written at most once a minute, however much is said there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from bub.envelope import Envelope, field_of

from bub_cron.checkers import check_to, split_to
from bub_cron.gateway.inbox import Inbox
from bub_cron.wire import CHATS, MAX_LINE, encode, iso

MOST = 1000
WRITE_SECONDS = 60.0  # between two writes of one chat
_MOST_BYTES = MAX_LINE - 1024  # of the chats in an answer


class Seen:
    """The chats and when each was last heard of, the oldest first. One for each plugin."""

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._chats: dict[str, float] = {}
        self._stored: dict[str, float] = {}

    def note(self, message: Envelope) -> None:
        """Note that a message came from its chat."""
        channel, chat_id = field_of(message, "channel"), field_of(message, "chat_id")
        if not isinstance(channel, str) or not isinstance(chat_id, str):
            return
        to = f"{channel}:{chat_id}"
        if self._chats.pop(to, None) is None and not _is_target(to):
            return
        self._chats[to] = self._now()
        if len(self._chats) > MOST:
            del self._chats[next(iter(self._chats))]

    async def load(self, inbox: Inbox) -> None:
        """Take in what the store knows; what was noted meanwhile counts more."""
        self._stored = await inbox.chats()
        both = {**self._stored, **self._chats}
        self._chats = dict(sorted(both.items(), key=lambda pair: pair[1])[-MOST:])

    async def store(self, inbox: Inbox, channels: Iterable[str], *, all_: bool = False) -> None:
        """Write the chats of these channels whose row is new, or a minute old; with `all_`, each that has changed."""
        least = 0.0 if all_ else WRITE_SECONDS
        changed = {
            to: seen
            for to, seen in self._of(channels)
            if (stored := self._stored.get(to)) is None or (seen != stored and abs(seen - stored) >= least)
        }
        if changed:
            await inbox.keep_chats(changed, MOST)
            self._stored |= changed

    def answer(self, channels: Iterable[str]) -> dict[str, Any]:
        """Return the answer to `{"chats": true}`: the chats of these channels, the newest first, as many as a line takes."""
        chats: list[dict[str, str]] = []
        found = self._of(channels)
        size = 0
        for to, seen in reversed(found):
            chat = {"to": to, "seen": iso(seen)}
            size += len(encode(chat)) + 1
            if size > _MOST_BYTES:
                break
            chats.append(chat)
        left_out = len(found) - len(chats)
        return {"status": CHATS, "chats": chats, **({"left_out": left_out} if left_out else {})}

    def _of(self, channels: Iterable[str]) -> list[tuple[str, float]]:
        """Return what is to be told: chats of other channels, as of a terminal, can't be reached."""
        known = set(channels)
        return [(to, seen) for to, seen in self._chats.items() if split_to(to)[0] in known]


def _is_target(to: str) -> bool:
    try:
        return check_to(to) == to
    except ValueError:
        return False
