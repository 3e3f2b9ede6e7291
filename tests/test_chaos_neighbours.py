"""A short random test of neighbours; `make chaos` runs the long one. See chaos_neighbours.py for what it holds to account."""

from __future__ import annotations

import pytest
from chaos import find_library
from chaos_neighbours import Neighbours, report

LIBRARY = find_library()
SEED, FIRINGS, SPEED = 7, 25, 10


@pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (Debian, Ubuntu: apt install libfaketime)")
def test_every_promise_is_kept_whatever_the_neighbours_do() -> None:
    print(f"python tests/chaos_neighbours.py --seed {SEED} --firings {FIRINGS}")  # shown when the test fails
    run = Neighbours(SEED, FIRINGS, SPEED, library=str(LIBRARY))
    try:
        outcome = run.run()
        print("\n".join(report(outcome)))
    finally:
        run.close()
    assert not outcome.broken, f"{len(outcome.broken)} broken promises, above"
    assert outcome.kills, "nothing was killed"
    assert outcome.arrived, "nothing arrived"
    assert len(outcome.outcomes) >= 3, f"the neighbours made no difference: {outcome.outcomes}"
