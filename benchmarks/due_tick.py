"""CPU of a tick with one firing due, until its line is on the socket.

In: everything that the tick's process has used at the moment at which the other end has its line in hand: start of the
interpreter, ledger, next fire time, commits, connection. Out: reading the answer, recording it, ending. The baseline is
measured to its end. The other end is this process, which looks at the tick's CPU clock (the peer's process id) as soon as
`recv` returns, and only then answers.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import struct
import threading
import time

from benchmarks.measure import PYTHON, Figure, Pairs, cpu_of, in_turn, main, run
from benchmarks.places import MINUTE, Place
from bub_cron.paths import make_private_directory


class OtherEnd:
    """Listens at the place's socket and takes one firing at a time. Use as a context manager."""

    def __init__(self, path: str) -> None:
        make_private_directory(os.path.dirname(path))
        self._listening = socket.socket(socket.AF_UNIX)
        self._listening.bind(path)
        self._listening.listen()
        self._seen: list[float] = []
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> OtherEnd:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listening.close()

    def take_seen(self) -> float:
        """Return the CPU that the one tick since the last call had used when its line was here."""
        (seconds,) = self._seen
        self._seen.clear()
        return seconds

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return  # it was shut down
            with connection:
                peer = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
                line = b""
                while not line.endswith(b"\n"):
                    line += connection.recv(1 << 16)
                self._seen.append(cpu_of(peer))
                answer = {"id": json.loads(line)["id"], "status": "accepted"}
                connection.sendall(json.dumps(answer).encode() + b"\n")


def measure(pairs: int = 100) -> Figure:
    """Compare a tick's CPU until its one due line is on the socket with that of `python -I -c pass`."""
    cron, at = (_measure_kind(kind, pairs) for kind in ("cron", "at"))
    ratio = cron.ratio
    return Figure(
        "CPU of a tick with one firing due, until its line is on the socket",
        f"`python -I -c pass` ({1000 * statistics.median(cron.baseline):.1f} ms)",
        "at most 2.5",
        f"{ratio.text()}, {pairs} pairs",
        ratio.median <= 2.5,
        (f"its schedule is a cron in a zone; with an `at` {at.ratio.text()}",),
    )


def _measure_kind(kind: str, pairs: int) -> Pairs:
    with Place() as place, OtherEnd(place.paths.socket) as other_end:
        due_at = 0

        def tick() -> float:
            nonlocal due_at
            if due_at + MINUTE <= time.time():  # a tick comes within its minute
                due_at = place.write_due(1, kind=kind, message="text: Time for your pills.", others=9)
                place.keep_ledger()
            place.restore_ledger()
            place.tick()
            return other_end.take_seen()

        return in_turn(lambda: run(PYTHON, place.environment).cpu, tick, pairs)


if __name__ == "__main__":
    main(measure)
