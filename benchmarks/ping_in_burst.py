"""How long another caller's ping takes while 10,000 firings come over one connection.

In: connecting, as `bub-cron status` does, and the answer; one every 10 ms, whether or not the one before has its answer.
So an event loop that is held for 400 ms counts with all the pings of that time. Counted are those from the tick's first
line until all are accepted. The baseline: the same pings to the same gateway, idle.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import NamedTuple

from benchmarks.burst import bare_server, run_due_tick
from benchmarks.gateways import INSTANT, PATIENCE, Gateway, settle
from benchmarks.measure import Figure, Spread, main
from benchmarks.places import Place

EVERY = 0.010  # seconds
PING = b'{"ping": true}\n'
BARE_PING = b'{"id": "ping"}\n'


class Ping(NamedTuple):
    """When it began (monotonic seconds), how long its answer took, and whether firings waited or ran then."""

    began: float
    seconds: float
    busy: bool


def measure(pairs: int = 5, firings: int = 10_000, idle_seconds: float = 2.0) -> Figure:
    """Compare a ping's time during a burst with that of an idle gateway."""
    with Place() as place:
        place.write_due(firings, message="text: Time for your pills.", chats=100)
        place.keep_ledger()
        bare, idle, burst, after = [], [], [], []
        for _ in range(pairs):
            with bare_server(place), _pinged(place, BARE_PING) as pings:
                began, ended = run_due_tick(place, firings)
            bare.append(_worst(pings, began, ended))
            with Gateway(place, INSTANT) as gateway:
                settle()
                with _pinged(place, PING) as pings:
                    time.sleep(idle_seconds)
                    began, ended = run_due_tick(place, firings)
                    gateway.wait_until_idle()
            idle.append(_worst(pings, 0.0, pings[0].began + idle_seconds))
            burst.append(_worst(pings, began, ended))
            after.append(_worst([ping for ping in pings if ping.busy], ended, ended + PATIENCE))
            for left in place.home.glob("cron/inbox.db*"):
                left.unlink()
    found = Spread.of(burst)
    return Figure(
        f"a ping while {firings:,} firings come over another connection, 99th percentile",
        f"the same pings to the idle gateway ({median(idle) * 1000:.1f} ms)",
        "at most 100 ms",
        f"{found.text(' ms', 1, 1000)}, {pairs} pairs",
        found.median <= 0.100,
        (
            f"until all are delivered: {Spread.of(after).text(' ms', 1, 1000)}",
            f"a bare asyncio server, fed by the same tick: {Spread.of(bare).text(' ms', 1, 1000)}",
        ),
    )


def _worst(pings: list[Ping], begin: float, end: float) -> float:
    """Return the 99th percentile of those that began in between."""
    seconds = [ping.seconds for ping in pings if begin <= ping.began <= end] or [0.0]
    return statistics.quantiles(seconds, n=100, method="inclusive")[98] if len(seconds) > 1 else seconds[0]


@contextmanager
def _pinged(place: Place, line: bytes) -> Iterator[list[Ping]]:
    """Ping whoever listens, in a thread, until the end; yield the list of pings, which is whole afterwards."""
    pings: list[Ping] = []
    over = threading.Event()

    async def ping() -> None:
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE):
            reader, writer = await asyncio.open_unix_connection(place.paths.socket)
            writer.write(line)
            answer = json.loads(await reader.readline())
        pings.append(Ping(began, time.monotonic() - began, bool(answer.get("waiting") or answer.get("running"))))
        writer.close()
        await writer.wait_closed()

    async def ping_on() -> None:
        async with asyncio.TaskGroup() as group:
            while not over.is_set():
                group.create_task(ping())
                await asyncio.sleep(EVERY)

    pinger = threading.Thread(target=asyncio.run, args=(ping_on(),), daemon=True)
    pinger.start()
    try:
        yield pings
    finally:
        over.set()
        pinger.join(PATIENCE)


if __name__ == "__main__":
    main(measure)
