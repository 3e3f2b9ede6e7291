"""bub-slack's channel and the real slack_sdk over a Slack on loopback.

bub-slack is not on PyPI: this runs where it can be imported (bub-contrib's packages/bub-slack/src and slack_sdk on
PYTHONPATH).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from neighbours.platform import (
    TAKES,
    TAKES_AND_BABBLES,
    TAKES_AND_CLOSES,
    TAKES_AND_HANGS,
    Platform,
    Request,
    Step,
    answers,
)
from neighbours.rigs import Rig, channel_class, rig

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def usual(request: Request) -> tuple[int, Any]:
    return 200, {"ok": True, "ts": "1.2"}


@pytest.fixture
def slack() -> Iterator[Platform]:
    made = Platform(usual, lambda request: request.path.endswith("chat.postMessage")).start()
    yield made
    made.stop()


def with_slack(path: Path, platform: Platform, test: Callable[[Rig], Awaitable[None]], **how: Any) -> None:
    kind = channel_class("bub_slack.channel.SlackChannel")
    from slack_sdk.web.async_client import AsyncWebClient  # type: ignore[import-not-found, unused-ignore]

    async def main() -> None:
        settings = {"BUB_SLACK_BOT_TOKEN": "xoxb", "BUB_SLACK_APP_TOKEN": "xapp"}
        async with rig(path, "slack", settings, kind, start=False, **how) as made:
            # As its start() does, which would also open a socket to Slack.
            made.channel._web_client = AsyncWebClient(token="xoxb", base_url=f"{platform.url}/api/")
            await test(made)

    asyncio.run(main())


def sent(platform: Platform) -> list[tuple[str, str, str | None]]:
    found = [request.fields() for request in platform.arrived]
    return [(fields["channel"], fields["text"], fields.get("thread_ts")) for fields in found]


def test_in_the_good_case_each_text_arrives_once_as_it_is(tmp_path: Path, slack: Platform) -> None:
    texts = ["hello", "42", '{"a": 1}', '{"message": "x"}', "[1]", "🎉", "x" * 3900]

    async def test(made: Rig) -> None:
        for text in texts:
            assert await made.send("slack:C1", text) == "sent"
        assert [len(part) for part in made.delivery.parts("slack:C1", "x" * 4000)] == [3900, 100]

    with_slack(tmp_path, slack, test)
    assert sent(slack) == [("C1", text, None) for text in texts]


def test_a_thread_is_reached_by_the_context_or_by_the_target(tmp_path: Path, slack: Platform) -> None:
    async def test(made: Rig) -> None:
        assert await made.send("slack:C1", "a", thread_ts="1.2") == "sent"
        assert await made.send("slack:C1:3.4", "b") == "sent"
        assert await made.send("slack:C1", "c", thread_id="5.6") == "sent"

    with_slack(tmp_path, slack, test)
    assert sent(slack) == [("C1", "a", "1.2"), ("C1", "b", "3.4"), ("C1", "c", None)]


@pytest.mark.parametrize(
    ("step", "outcome", "wait"),
    [
        (answers(200, {"ok": False, "error": "channel_not_found"}), "refused for good", None),
        (answers(200, {"ok": False, "error": "not_authed"}), "refused for good", None),
        (answers(429, {"ok": False, "error": "ratelimited"}, **{"Retry-After": "30"}), "refused", 30),
        (answers(200, {"ok": False, "error": "internal_error"}), "not seen", None),
        (answers(503, {}), "not seen", None),
        (TAKES_AND_BABBLES, "not seen", None),
        (TAKES_AND_HANGS, "not seen", None),
    ],
    ids=str,
)
def test_how_a_send_ends(tmp_path: Path, slack: Platform, step: Step, outcome: str, wait: float | None) -> None:
    async def test(made: Rig) -> None:
        slack.script = [step]
        assert await made.send("slack:C1") == outcome, made.error
        assert getattr(made.error, "retry_after", None) == wait

    with_slack(tmp_path, slack, test, send_seconds=2.0)
    assert len(slack.asked) == 1


def test_slack_sdk_repeats_a_broken_request_by_itself_and_nobody_can_see_it(tmp_path: Path, slack: Platform) -> None:
    async def test(made: Rig) -> None:
        slack.script = [TAKES_AND_CLOSES, TAKES]
        assert await made.send("slack:C1") == "sent"

    with_slack(tmp_path, slack, test)
    assert len(slack.arrived) == 2


def test_without_a_connection_it_was_not_seen_since_a_hidden_try_may_have_arrived(
    tmp_path: Path, slack: Platform
) -> None:
    async def test(made: Rig) -> None:
        slack.stop()
        assert await made.send("slack:C1") == "not seen"
        assert "ClientConnectorError" in str(made.error)

    with_slack(tmp_path, slack, test)


def test_before_it_is_connected_it_is_refused_rather_than_dropped(tmp_path: Path, slack: Platform) -> None:
    async def test(made: Rig) -> None:
        made.channel._web_client = None
        assert await made.send("slack:C1") == "refused"

    with_slack(tmp_path, slack, test)
    assert slack.asked == []
