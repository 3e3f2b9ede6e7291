"""no_reply.py: which replies mean that nothing is to be sent."""

from __future__ import annotations

import pytest

from bub_cron.gateway.no_reply import is_no_reply, without_no_reply

TAG = "<no_reply/>"


@pytest.mark.parametrize(
    "reply",
    [
        TAG, "<no_reply />", "<NO_REPLY/>", "<No_Reply>", "<no_reply></no_reply>", "<no_reply>\n</no_reply>", "< no_reply / >",
        f"`{TAG}`", f"**{TAG}**", f"{TAG}.", f'"{TAG}"', f"\u201c{TAG}\u201d", f"  {TAG}\n", f"- {TAG}", f"> {TAG}", f"# {TAG}",
        f"```\n{TAG}\n```", f"```xml\n{TAG}\n```", f"({TAG})", f"{TAG}\n{TAG}", f"\ufeff{TAG}\u200b", f"…{TAG}!", f"「{TAG}」。",
    ],
)  # fmt: skip
def test_the_tag_alone_is_no_reply(reply: str) -> None:
    assert is_no_reply(reply)


@pytest.mark.parametrize(
    "reply", ["", " \n", '""', "''", "****", "``", "```\n```", "```text\n```", "`\u200b`", "\u201c\u201d", "---", "> "]
)
def test_nothing_but_markup_quotes_and_white_space_is_no_reply(reply: str) -> None:
    assert is_no_reply(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "hello", "0", "?", "!", "…", "[]", "👍", "→", "€", "½",
        f"{TAG} 👍", f"{TAG} nothing new", f"a{TAG}", f"`{TAG}` means silence", "no_reply", "<no_reply", "<no-reply/>",
        "<reply/>", "&lt;no_reply/&gt;", "```xml\n<other/>\n```", "```\n7\n```", "日",
    ],
)  # fmt: skip
def test_whatever_says_something_is_a_reply(reply: str) -> None:
    assert not is_no_reply(reply)


@pytest.mark.parametrize(
    ("reply", "sent"),
    [
        (f"Two letters. {TAG}", "Two letters."),
        ("<NO_REPLY />\nBut see this", "But see this"),
        (f"<no_{TAG}reply/>x", "x"),
        ("hello", "hello"),
        (" a < b > c ", " a < b > c "),
    ],
)
def test_the_tag_never_reaches_a_chat(reply: str, sent: str) -> None:
    assert without_no_reply(reply) == sent
