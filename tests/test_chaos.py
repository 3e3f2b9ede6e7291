"""A short random crash test; `make chaos` runs the long one. See chaos.py for what it does and what it holds to account."""

from __future__ import annotations

import random

import pytest
from chaos import Chaos, find_library, report

LIBRARY = find_library()


@pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (Debian, Ubuntu: apt install libfaketime)")
@pytest.mark.parametrize("kind", ["a fixed seed", "a random seed"])
def test_every_promise_is_kept_whatever_is_killed(kind: str) -> None:
    seed = 4 if kind == "a fixed seed" else random.SystemRandom().randrange(1_000_000)
    print(f"python tests/chaos.py --seed {seed} --minutes 0.2 --speed 40")  # shown when the test fails
    chaos = Chaos(seed, 0.2, 40, library=str(LIBRARY))
    try:
        outcome = chaos.run()
        print("\n".join(report(outcome)))
    finally:
        chaos.house.close()
    assert not outcome.broken, f"seed {seed}: {len(outcome.broken)} broken promises, above"
    assert outcome.kills, f"seed {seed}: nothing was killed"
    assert outcome.messages, f"seed {seed}: nothing arrived"
