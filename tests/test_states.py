"""The tables of states: what holds for every move, and that the documentation says the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from bub_cron import states
from bub_cron.states import FIRING_MOVES, LEDGER_MOVES, MESSAGE_MOVES, Move

TABLES = {"ledger": LEDGER_MOVES, "firing": FIRING_MOVES, "message": MESSAGE_MOVES}
DOCS = Path(__file__).parent.parent / "docs" / "states.md"
MOVES = [pytest.param(moves, event, id=f"{table}-{event}") for table, moves in TABLES.items() for event in moves]


@pytest.mark.parametrize("moves, event", MOVES)
def test_a_move_starts_from_open_states_only(moves: dict[str, Move], event: str) -> None:
    assert set(moves[event].sources) <= set(states.open_states(moves)) or moves[event].state is None


@pytest.mark.parametrize("moves", TABLES.values(), ids=TABLES)
def test_every_state_is_documented_and_can_be_reached(moves: dict[str, Move]) -> None:
    reached = {move.state for move in moves.values()} - {None}
    assert reached == set(states.all_states(moves))
    assert states.__doc__ is not None
    for state in reached:
        assert f"\n{state} " in states.__doc__


@pytest.mark.parametrize("moves", TABLES.values(), ids=TABLES)
def test_from_every_open_state_a_final_one_can_be_reached(moves: dict[str, Move]) -> None:
    for start in states.open_states(moves):
        found, before = {start}, set[str]()
        while found != before:
            before = set(found)
            found |= {move.state for move in moves.values() if move.state and found & set(move.sources)}
        assert found - set(states.open_states(moves)), start


def test_open_final_good_and_bad_split_the_outcomes() -> None:
    assert {"accepted", "running", "retrying"} == states.OPEN
    assert states.OPEN | states.FINAL | {"due"} == set(states.OUTCOMES)
    assert states.GOOD | states.BAD | {"skipped"} == states.FINAL
    assert {"rejected"} == states.FINAL - states.IN_INBOX
    assert {"waiting", "sending"} == states.MESSAGE_OPEN


@pytest.mark.parametrize(
    "replies, outcome",
    [
        (["delivered"], "delivered"),
        (["delivered", "delivered"], "delivered"),
        (["delivered", "unknown", "skipped"], "unknown"),
        (["unknown", "undelivered"], "undelivered"),
        (["undelivered", "skipped"], "undelivered"),
    ],
)
def test_the_worst_of_the_replies_is_the_outcome(replies: list[str], outcome: str) -> None:
    assert states.worst(replies) == outcome


def test_a_list_for_sql_always_has_the_same_words() -> None:
    assert states.sql_list(states.OPEN) == "('accepted', 'retrying', 'running')"


def test_the_documentation_holds_the_tables() -> None:
    found = DOCS.read_text()
    for moves in TABLES.values():
        for event, move in moves.items():
            source, target = ", ".join(move.sources) or "(none)", move.state or "(gone)"
            assert f"| {event} | {source} | {target} | {move.meaning} |\n" in found
    for code, meaning in states.REASONS.items():
        assert f"| {code} | {meaning} |\n" in found
