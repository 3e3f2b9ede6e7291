"""What is known of channels: that it fits together, and that it is about the versions it says."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from bub.channels import Channel, ChannelMessage
from bub.channels.telegram import TelegramChannel
from neighbours.rigs import channel_class

from bub_cron.channel_facts import CONTEXT_KEYS, PLACES, ignored_context, is_place
from bub_cron.gateway.channels import GENERAL, KNOWN, discord, facts_of, qq, sender_of, slack
from bub_cron.gateway.channels.facts import Facts, without_json

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

HERE = Path(__file__).parent.parent


def name_of(facts: Facts) -> str:
    return facts.learned_from.split()[0].removeprefix("bub-").replace("bub", "telegram")


def test_each_known_channel_is_known_to_check_too() -> None:
    assert {name_of(facts) for facts in KNOWN} == set(CONTEXT_KEYS)
    assert set(PLACES) <= set(CONTEXT_KEYS)


@pytest.mark.parametrize("facts", KNOWN, ids=name_of)
def test_a_known_channel_is_known_by_its_real_class(facts: Facts) -> None:
    assert sender_of(channel_class(facts.sender)) == facts.sender


class Own(TelegramChannel):
    async def send(self, message: ChannelMessage) -> None: ...


class Inherited(TelegramChannel):
    name = "work"


class Mixed(Inherited, Own): ...


@pytest.mark.parametrize(
    ("kind", "known"), [(TelegramChannel, True), (Inherited, True), (Own, False), (Mixed, False), (Channel, False)]
)
def test_whose_send_it_is_decides(kind: type[Channel], known: bool) -> None:
    assert (sender_of(kind) in {facts.sender for facts in KNOWN}) is known


def test_of_an_unknown_channel_nothing_is_known() -> None:
    channel = Own.__new__(Own)
    assert facts_of(channel) is GENERAL
    assert GENERAL.limit is None
    assert GENERAL.content("42") == "42"


def test_the_versions_that_are_tried_are_those_that_it_was_learned_from() -> None:
    pinned = set(tomllib.loads((HERE / "pyproject.toml").read_text())["dependency-groups"]["channels"])
    learned = {facts.learned_from.replace(" ", "==") for facts in KNOWN}
    assert {pin for pin in pinned if pin.startswith("bub-")} <= learned


def test_the_table_in_the_docs_says_the_same() -> None:
    text = (HERE / "docs" / "channels.md").read_text()
    rows = {cells[1]: cells for cells in (re.split(r" *\| *", line) for line in text.splitlines()) if len(cells) == 8}
    for facts in KNOWN:
        _, _, learned, _, holds, reads, _, _ = rows[name_of(facts)]
        assert learned == facts.learned_from
        if facts.limit is None:
            assert holds == "not known"
        else:
            assert holds.startswith(f"{facts.limit.most:,} {facts.limit.unit}")
        assert set(re.findall(r"`(\w+)`", reads)) == CONTEXT_KEYS[name_of(facts)]


def test_what_a_channel_ignores_is_sorted_and_nothing_is_said_of_unknown_ones() -> None:
    context = {"b": "1", "thread_ts": "2", "a": "3"}
    assert ignored_context("telegram", context) == ["a", "b", "thread_ts"]
    assert ignored_context("slack", context) == ["a", "b"]
    assert ignored_context("mychat", context) == []
    assert is_place("thread_id")
    assert not is_place("customer")


@pytest.mark.parametrize("text", ["hello", "", "{broken", "a: 1"])
def test_what_is_no_json_goes_as_it_is(text: str) -> None:
    assert without_json(text) == text


def test_a_chat_id_is_taken_as_the_channel_spells_it() -> None:
    assert (slack.FACTS.chat_id("C1"), slack.FACTS.chat_id("C1:1712.34")) == ("C1", "C1")
    assert discord.FACTS.bad_chat_id("42") is None
    assert "'general'" in (discord.FACTS.bad_chat_id("general") or "")
    assert [qq.FACTS.bad_chat_id(to) is None for to in ("c2c:U", "group:G", "U", "c2c:")] == [True, True, False, False]
