"""DingTalk, by bub-dingtalk (in bub-contrib's repository; not on PyPI).

Its `send()` posts to `chat_id` (`group:ID`, or a user's id) and ignores `context`. Whatever goes wrong is a logged error
and no exception, also a connection that never came about.
"""

from __future__ import annotations

from bub_cron.gateway.channels.facts import Facts

FACTS = Facts(sender="bub_dingtalk.channel.DingTalkChannel", learned_from="bub-dingtalk 0.1.0")
