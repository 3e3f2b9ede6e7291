"""How cost grows: with the reminders in the file, the firings of one minute, the rows of history, the waiting firings.

Each at three sizes, the smallest first. CPU is of the whole process; seconds are the clock's. A value is the median of
`repeats`, where it says nothing else. What the commands cost that look at history is in log_history.py.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from statistics import median

from benchmarks.gateways import INSTANT, Gateway, firing_lines, settle
from benchmarks.log_history import fill
from benchmarks.measure import SCRIPTS, Usage, main, run
from benchmarks.places import Place


def measure(
    repeats: int = 5, scale: float = 1.0, sizes: int = 3, only: str = "reminders,firings,history,waiting"
) -> str:
    """Measure the tables of `only`; `scale` makes all sizes smaller, or larger; `sizes` is how many of the three to try."""
    tables: dict[str, tuple[str, Callable[[int], Row], tuple[int, ...]]] = {
        "reminders": ("reminders in the file", lambda count: _reminders(count, repeats), (100, 1_000, 10_000)),
        "firings": ("firings in one minute", _firings, (100, 1_000, 10_000)),
        "history": (
            "rows of history, in each store",
            lambda count: _history(count, repeats),
            (10_000, 100_000, 1_000_000),
        ),
        "waiting": ("waiting firings", lambda count: _waiting(count, repeats), (100, 1_000, 10_000)),
    }
    chosen = [tables[name] for name in only.split(",")]
    return "\n\n".join(
        _table(title, [measure_one(max(1, int(count * scale))) for count in counts[:sizes]])
        for title, measure_one, counts in chosen
    )


type Row = dict[str, str]


def _table(title: str, columns: Sequence[Row]) -> str:
    names = list(columns[0])
    lines = [[title if name == names[0] else name, *(column[name] for column in columns)] for name in names]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], ["---"] * len(lines[0]), *lines[1:]])


def _reminders(count: int, repeats: int) -> Row:
    with Place() as place:
        place.write(count)
        place.tick()
        idle = median(place.idle_tick().cpu for _ in range(repeats * 4))
        edits: list[Usage] = []
        for _ in range(repeats):
            place.write(count, edited=f" {os.urandom(4).hex()}")
            edits.append(place.tick())
        listing = [run([str(SCRIPTS / "bub-cron"), "list"], place.environment).cpu for _ in range(repeats)]
        return {
            "": f"{count:,}",
            "CPU of an idle tick": _ms(idle),
            "CPU of a tick after an edit": _ms(median(edit.cpu for edit in edits)),
            "its peak memory": f"{median(edit.peak_kib for edit in edits) / 1024:,.0f} MiB",
            "CPU of `bub-cron list`": _ms(median(listing)),
            "size of the ledger": _mib(place.paths.ledger),
        }


def _firings(count: int) -> Row:
    """Measured once: one minute in which so many are due, as `text`, to 100 chats."""
    with Place() as place, Gateway(place, INSTANT) as gateway:
        settle()
        place.write_due(count, message="text: Time for your pills.", chats=100)
        sent, before, began = gateway.command("sent"), gateway.cpu(), time.monotonic()
        tick = place.tick()
        ticked = time.monotonic() - began
        gateway.command("wait_for_sent", count=sent + count)
        gateway.wait_until_idle()
        delivered = time.monotonic() - began
        return {
            "": f"{count:,}",
            "CPU of the tick": _ms(tick.cpu),
            "its peak memory": f"{tick.peak_kib / 1024:,.0f} MiB",
            "from its start to its end, all accepted": f"{ticked:,.1f} s",
            "until all are delivered": f"{delivered:,.1f} s",
            "CPU of the gateway, for each": _ms((gateway.cpu() - before) / count, 2),
        }


def _history(count: int, repeats: int) -> Row:
    with Place() as place:
        place.write(10)
        place.tick()
        fill(place, count)
        idle = median(place.idle_tick().cpu for _ in range(repeats * 4))
        with Gateway(place, INSTANT) as gateway:
            settle()
            one = [
                _seconds(lambda label=f"one-{n}": gateway.run_firings(firing_lines(1, label, kind="text")))  # type: ignore[misc]
                for n in range(repeats * 4)
            ]
        return {
            "": f"{count:,}",
            "CPU of an idle tick": _ms(idle),
            "a firing in an idle gateway, to its final outcome": _ms(median(one), 1),
            "size of both stores": _mib(place.paths.inbox, place.paths.ledger),
        }


def _waiting(count: int, repeats: int) -> Row:
    with Place() as place, Gateway(place, INSTANT, BENCH_HOLD="1") as gateway:
        settle()
        before = gateway.resident_kib()
        gateway.submit(firing_lines(count, "waits", kind="text", chats=100))
        settle()
        resident = gateway.resident_kib() - before
        ping = [_seconds(gateway.ping) for _ in range(repeats * 4)]
        one = [
            _seconds(lambda label=f"more-{n}": gateway.submit(firing_lines(1, label, kind="text")))  # type: ignore[misc]
            for n in range(repeats * 4)
        ]
        idle = gateway.cpu()
        time.sleep(5)
        idle = gateway.cpu() - idle
    return {
        "": f"{count:,}",
        "memory that they take in the gateway": f"{resident / 1024:,.1f} MiB",
        "a ping's answer": _ms(median(ping), 1),
        "one more, until `accepted`": _ms(median(one), 1),
        "CPU of the gateway in 5 s, while they wait": _ms(idle),
    }


def _seconds(do: Callable[[], object]) -> float:
    began = time.monotonic()
    do()
    return time.monotonic() - began


def _ms(seconds: float, digits: int = 0) -> str:
    return f"{seconds * 1000:,.{digits}f} ms"


def _mib(*paths: str) -> str:
    return f"{sum(os.stat(path).st_size for path in paths) / 1024 / 1024:,.1f} MiB"


if __name__ == "__main__":
    main(measure)
