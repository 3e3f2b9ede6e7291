"""10,000 firings due in one minute: from the tick's first line until all are accepted.

In: the tick's writing and reading, the gateway's judging, its inbox's syncs, and whatever it does meanwhile about those it
has accepted already (it sends them: they are `text`, to a chat that takes each at once). Out: the tick's own records
before and after. The baseline is fed by the same tick. Checked: the inbox has every one of them.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

from benchmarks.gateways import INSTANT, Gateway, settle
from benchmarks.measure import Figure, Pairs, in_turn, main
from benchmarks.places import Place

HERE = Path(__file__).parent
HOLDING = {"BENCH_HOLD": "1"}


def measure(pairs: int = 5, held_pairs: int = 3, firings: int = 10_000) -> Figure:
    """Compare the rate at which a gateway accepts a minute's firings with that of a bare server."""
    with Place() as place:
        place.write_due(firings, message="text: Time for your pills.", chats=100)
        place.keep_ledger()

        def bare() -> float:
            with bare_server(place):
                return firings / _seconds_until_accepted(place, firings)

        def gateway(*, hold: bool = False) -> float:
            with Gateway(place, {**INSTANT, **HOLDING} if hold else INSTANT):
                settle()
                seconds = _seconds_until_accepted(place, firings)
                _check_inbox(place, firings)
            for left in place.home.glob("cron/inbox.db*"):
                left.unlink()
            return firings / seconds

        found = in_turn(bare, gateway, pairs, warm_up=False)
        held = in_turn(bare, lambda: gateway(hold=True), held_pairs, warm_up=False) if held_pairs else None
    ratio = found.ratio
    return Figure(
        f"{firings:,} firings due in one minute, until all are accepted and on disk",
        f"a bare asyncio server, no disk ({median(found.baseline):,.0f} a second)",
        "at least 0.25 of its rate",
        f"{ratio.text()}, {pairs} pairs",
        ratio.median >= 0.25,
        (f"{median(found.ours):,.0f} a second", *_told(held)),
    )


def _told(held: Pairs | None) -> list[str]:
    if held is None:
        return []
    return [f"with a chat that takes nothing meanwhile: {held.ratio.text()}, {median(held.ours):,.0f} a second"]


def _seconds_until_accepted(place: Place, firings: int) -> float:
    began, ended = run_due_tick(place, firings)
    return ended - began


def run_due_tick(place: Place, firings: int) -> tuple[float, float]:
    """Run the tick that so many are due at; return (when its first line began, when all were accepted), monotonic."""
    place.restore_ledger()
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.timed_tick"],
        env=place.environment, cwd=HERE.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    count, began, ended = done.stdout.split() or ("0", "0", "0")
    if done.returncode or int(count) != firings:
        raise RuntimeError(f"the tick submitted {count} and ended with {done.returncode}: {done.stderr[-2000:]}")
    return float(began), float(ended)


def _check_inbox(place: Place, firings: int) -> None:
    with closing(sqlite3.connect(f"file:{place.paths.inbox}?mode=ro", uri=True)) as inbox:
        (count,) = inbox.execute("SELECT count(*) FROM firings").fetchone()
    if count != firings:
        raise RuntimeError(f"the inbox has {count} of {firings}")


@contextmanager
def bare_server(place: Place) -> Iterator[None]:
    """Have the bare server listen where the gateway would."""
    path = Path(place.paths.socket)
    path.unlink(missing_ok=True)
    command = [sys.executable, str(HERE / "bare_server.py"), str(path)]
    with subprocess.Popen(command, env=place.environment, stdout=subprocess.PIPE) as server:
        try:
            if server.stdout is None or not server.stdout.readline():
                raise RuntimeError("the bare server did not come up")
            yield
        finally:
            server.kill()
    path.unlink()


if __name__ == "__main__":
    main(measure)
