"""Time from a firing's line on the socket to the start of its turn, the gateway idle.

In: from just before the line is written, on a connection that stands, to the first hook that Bub's turn calls; so reading
and judging the request, the inbox's commit, the answer, and the commit that an attempt starts. The baseline: in the same
process, from just before `framework.process_inbound` is called to the same hook. Between two firings the gateway rests.
"""

from __future__ import annotations

import json
import socket
import statistics
import time

from benchmarks.gateways import INSTANT, Gateway
from benchmarks.measure import Figure, in_turn, main
from benchmarks.places import Place


def measure(pairs: int = 500) -> Figure:
    """Compare the wait for a turn's start through the socket with that of a direct `process_inbound`."""
    with Place() as place, Gateway(place, INSTANT) as gateway:
        count = iter(range(1_000_000))

        def directly() -> float:
            return float(gateway.command("start", content=f"mark {next(count)}"))

        def by_socket() -> float:
            content = f"mark {next(count)}"
            line = json.dumps({"to": "benchchat:alice", "prompt": content}).encode() + b"\n"
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(place.paths.socket)
                time.sleep(0.02)
                before = time.monotonic()
                connection.sendall(line)
                with connection.makefile("rb") as answers:
                    words = [json.loads(answers.readline())["status"] for _ in range(2)]
            if words != ["accepted", "delivered"]:
                raise RuntimeError(f"the gateway answered {words}")
            return float(gateway.command("began", content=content)) - before

        found = in_turn(directly, by_socket, pairs)
    more = found.difference
    worst = statistics.quantiles(found.differences, n=100, method="inclusive")[98] if pairs > 1 else more.median
    return Figure(
        "time from the line on the socket to the start of the turn, gateway idle",
        f"a direct `process_inbound` ({statistics.median(found.baseline) * 1000:.2f} ms)",
        "at most + 10 ms, + 30 ms at the 99th percentile",
        f"+ {more.text(' ms', 1, 1000)}, + {worst * 1000:.1f} ms at the 99th percentile, {pairs} pairs",
        more.median <= 0.010 and worst <= 0.030,
    )


if __name__ == "__main__":
    main(measure)
