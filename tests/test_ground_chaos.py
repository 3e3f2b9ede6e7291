"""A short random test of moving ground; `make chaos` runs a long one. See ground_chaos.py for what it holds to account."""

from __future__ import annotations

import random

import pytest
from ground_chaos import GroundChaos, report


@pytest.mark.parametrize("kind", ["a fixed seed", "a random seed"])
def test_every_promise_is_kept_however_the_ground_moves(kind: str) -> None:
    seed = 2 if kind == "a fixed seed" else random.SystemRandom().randrange(1_000_000)
    print(f"python tests/ground_chaos.py --seed {seed} --days 1")  # shown when the test fails
    chaos = GroundChaos(seed, 1)
    broken = chaos.run()
    print("\n".join(report(chaos, broken)))
    assert not broken, f"seed {seed}: {len(broken)} broken promises, above"
    assert chaos.true > 100


def test_the_accounting_sees_what_is_wrong() -> None:
    """What is taken out of the books, or put into them, is found."""
    chaos = GroundChaos(5, 0.3)
    account = chaos._account

    def spoilt() -> list[str]:
        lost, *_ = chaos.place.select("SELECT id FROM firings WHERE state = 'accepted' ORDER BY id")
        import sqlite3
        from contextlib import closing

        with closing(sqlite3.connect(chaos.place.paths.ledger, isolation_level=None)) as ledger:
            ledger.execute("DELETE FROM firings WHERE id = ?", lost)
            ledger.execute("UPDATE firings SET fire_time = 86400, id = 'x@1970-01-02T00:00:00Z' WHERE rowid = 7")
        return [*account()]

    chaos._account = spoilt  # type: ignore[method-assign, assignment]
    broken = chaos.run()
    assert sum("is lost" in fault for fault in broken) == 2
    assert sum("is no fire time" in fault for fault in broken) == 1
