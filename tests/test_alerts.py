"""alerts: who is told what, and that no secret is in it."""

from typing import Any

import pytest

from bub_cron.gateway.alerts import sentence, target, without_secrets
from bub_cron.states import BAD, FAILED, FINAL
from bub_cron.wire import Request


def request(**fields: Any) -> Request:
    given = {"to": "t:1", "prompt": "hi", "id": "pills@2026-12-01T08:00:00Z", "reminder": "pills", **fields}
    return Request(given, new_id=lambda: "a", now=0)


@pytest.mark.parametrize("outcome", sorted(FINAL))
def test_who_is_told(outcome: str) -> None:
    bad = outcome in BAD
    assert target(request(alert="t:99"), outcome) == (("alert", "t:99") if bad else None)
    assert target(request(alert="none"), outcome) is None
    assert target(request(), outcome) == (("notice", "t:1") if outcome == FAILED else None)
    assert target(request(reminder=None, alert="t:99"), outcome) is None


def test_a_sentence_says_what_when_why_and_where_to_look() -> None:
    fire_time = "2026-12-01T08:00:00Z"
    assert sentence(request(fire_time=fire_time), "missed", "late", None) == (
        "The reminder pills due at 2026-12-01T08:00:00Z was missed: too late to start by the time it could."
        " To look: bub-cron log --id pills@2026-12-01T08:00:00Z"
    )
    assert sentence(request(), "failed", "attempts", "the model is down.") == (
        "The reminder pills failed: the model is down. To look: bub-cron log --id pills@2026-12-01T08:00:00Z"
    )
    for outcome in BAD:
        assert sentence(request(), outcome, None, None).startswith("The reminder pills ")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("Incorrect API key provided: sk-proj-abc***def. See below", "Incorrect API key provided: [...] See below"),
        ("401 for sk-ant-REDACTED", "401 for [...]"),
        ("Authorization: Bearer eyJhbGciOi.J9.x refused", "Authorization: Bearer [...] refused"),
        ("GET https://user:pass@host/x?token=1 gave 500", "GET https://[...] gave 500"),
        ("bot123456:AAEhBOweik6ad9r_QXMENQjcrGbqCr4K-bc is gone", "bot123456:[...] is gone"),
        ("api_key=abc", "api_key=[...]"),
        ("the turn did not end within 600 s", "the turn did not end within 600 s"),
        ("no such file: /home/bub/notes.txt", "no such file: /home/bub/notes.txt"),
        ("two\nlines", "two lines"),
    ],
)
def test_secrets_are_out(error: str, told: str) -> None:
    assert without_secrets(error) == told


def test_a_long_cause_is_cut() -> None:
    assert len(without_secrets("word " * 500)) == 200
