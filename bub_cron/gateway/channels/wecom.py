"""WeCom, by bub-wecom (in bub-contrib's repository; PyPI's bub-wecom is another one, and doesn't load on this Bub).

Its `send()` sends to `chat_id` and ignores `context`. Where a user's turn runs in the chat, the message becomes the answer
to that user. It drops in silence what is behind the 4,000th character, and logs an error before it raises.
"""

from __future__ import annotations

from bub_cron.gateway.channels.facts import Facts
from bub_cron.gateway.parts import Limit, code_points

FACTS = Facts(
    sender="bub_wecom.channel.WeComChannel",
    learned_from="bub-wecom 0.1.0",
    limit=Limit(4000, code_points, "characters"),
)
