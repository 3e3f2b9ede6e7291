"""The parsers, over the corpus that fuzzing has left and over inputs made from it: what tests/fuzz/run.py does at length."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "fuzz" / "corpus"
MUTANTS = 40  # of each input


@pytest.mark.parametrize("target", TARGETS)
def test_what_was_found_once_breaks_nothing(target: str) -> None:
    inputs = sorted((CORPUS / target).iterdir())
    assert len(inputs) >= 5
    for path in inputs:
        try:
            TARGETS[target](path.read_bytes())
        except Exception as error:
            raise AssertionError(f"{path} breaks {target}") from error


@pytest.mark.parametrize("target", TARGETS)
def test_inputs_made_of_these_break_nothing(target: str) -> None:
    chance = random.Random(8)
    inputs = [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]
    for given in inputs:
        for _ in range(MUTANTS):
            mutant = mutated(given, inputs, chance)
            try:
                TARGETS[target](mutant)
            except Exception as error:
                raise AssertionError(f"{mutant!r} breaks {target}") from error


def mutated(given: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Cut, repeat, overwrite or splice some bytes."""
    made = bytearray(given)
    for _ in range(chance.randint(1, 4)):
        start = chance.randrange(len(made) + 1)
        end = min(len(made), start + chance.randint(0, 20))
        match chance.randrange(4):
            case 0:
                del made[start:end]
            case 1:
                made[start:start] = made[start:end] * chance.randint(1, 30)
            case 2:
                made[start:end] = chance.randbytes(chance.randint(0, 4))
            case 3:
                other = chance.choice(others)
                cut = chance.randrange(len(other) + 1)
                made[start:end] = other[cut : cut + chance.randint(0, 100)]
    return bytes(made[:70_000])
