"""Attacks on a live gateway, and a soak: what each throws at it, and what must hold meanwhile and afterwards.

The tests use small sizes. At full size, by hand (`make siege`, `make soak`):

    python tests/siege.py attacks           # 1,000 callers at once, no descriptors left, 100 MiB of all sorts
    python tests/siege.py soak --firings 100000
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import selectors
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gateway_kit import Gateway, House, until

MIB = 1024 * 1024
SEED = 20261123


def memory(gateway: Gateway, field: str = "VmRSS") -> float:
    """Return what a gateway's process uses now (VmRSS), or used at most (VmHWM), in MiB."""
    text = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(text.split(f"{field}:")[1].split()[0]) / 1024


def descriptors(gateway: Gateway) -> int:
    return len(os.listdir(f"/proc/{gateway.process.pid}/fd"))


def connect(house: House) -> socket.socket:
    """Connect, waiting for room at the door if need be."""

    def knock() -> socket.socket | None:
        connected = socket.socket(socket.AF_UNIX)
        try:
            connected.connect(str(house.socket))
        except BlockingIOError:
            connected.close()
            return None
        connected.settimeout(60)
        return connected

    return until(knock, "room at the door")


@contextmanager
def many(house: House, number: int) -> Iterator[list[socket.socket]]:
    """Hold so many connections at once."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number + 200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, number + 200), hard))
    callers: list[socket.socket] = []
    try:
        for _ in range(number):
            callers.append(connect(house))
        yield callers
    finally:
        for caller in callers:
            caller.close()


def ask(house: House, request: dict[str, Any]) -> dict[str, Any]:
    """Ask once, and return the first answer."""
    with connect(house) as caller, caller.makefile("rb") as answers:
        caller.sendall(json.dumps(request).encode() + b"\n")
        answer: dict[str, Any] = json.loads(answers.readline())
        return answer


def is_well(house: House) -> None:
    """A gateway that is well answers, and delivers."""
    # At once after a crowd has left, its places may still be taken.
    until(lambda: ask(house, {"ping": True})["status"] == "pong", "an answer to a ping", 10)
    answer = ask(house, {"to": "sink:1", "text": "still there"})
    assert answer["status"] == "accepted"
    until(lambda: ask(house, {"status": answer["id"]})["status"] == "delivered", "the delivery of a text")


# --- The attacks


def crowd(house: House, number: int) -> Counter[str]:
    """So many callers at once, each with a ping; return what they were told. Each is told something."""
    with many(house, number) as callers:
        for caller in callers:
            with contextlib.suppress(BrokenPipeError):  # one that was turned away, and whose answer waits
                caller.sendall(b'{"ping": true}\n')
        told = Counter(json.loads(_first_line(caller))["status"] for caller in callers)
    assert told.total() == number
    assert set(told) <= {"pong", "busy"}
    return told


def _first_line(caller: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        received = caller.recv(1 << 16)
        assert received, f"closed after {line!r}"
        line += received
    return line


def no_descriptors(house: House, gateway: Gateway) -> int:
    """Take away all descriptors that the gateway doesn't use yet; return how many callers then had to wait."""
    limit = resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, (descriptors(gateway) + 3, limit[1]))
    try:
        with many(house, 20) as callers:
            for caller in callers:
                caller.sendall(b'{"ping": true}\n')
            time.sleep(5)
            waiting = sum(not _has_answer(caller) for caller in callers)
            assert gateway.process.poll() is None
    finally:
        resource.prlimit(gateway.process.pid, resource.RLIMIT_NOFILE, limit)
    assert gateway.log.read_text(errors="replace").count("no caller can be let in") <= 31
    return waiting


def _has_answer(caller: socket.socket) -> bool:
    with selectors.DefaultSelector() as selector:
        selector.register(caller, selectors.EVENT_READ)
        return bool(selector.select(0))


def noise(house: House, size: int, callers: int, seed: int = SEED) -> None:
    """Throw `size` bytes of all sorts at the socket, from so many callers in turn; most never read."""
    chance = random.Random(seed)
    thrown = 0
    with many(house, callers) as connected:
        for caller in connected:
            caller.setblocking(False)
        while thrown < size:
            caller = chance.choice(connected)
            data = _throwable(chance)
            try:
                thrown += caller.send(data)
            except OSError:  # full, or closed
                thrown += _or_a_new_one(house, connected, caller)


def _or_a_new_one(house: House, connected: list[socket.socket], caller: socket.socket) -> int:
    """Put a new caller in the place of one that the gateway no longer listens to; that costs the attacker something."""
    connected.remove(caller)
    caller.close()
    connected.append(connect(house))
    connected[-1].setblocking(False)
    return 1024


def _throwable(chance: random.Random) -> bytes:
    valid = json.dumps({"to": "sink:1", "text": "x" * chance.choice([1, 100, 60_000]), "wait": chance.random() < 0.5})
    return chance.choice([
        chance.randbytes(chance.randint(1, 65_536)),
        valid.encode() + b"\n",
        valid.encode()[: chance.randint(1, 200)],
        *_FIXED,
    ])


_FIXED = (
    b"[" * 65_536,
    b"\n" * 10_000,
    b'{"ping": true}\n' * 1_000,
    b'{"status": "nothing"}\n' * 1_000,
    b'{"a": "' + b"\\ud800" * 5_000 + b'"}\n',
    b'{"to": "sink:1", "text": "\x1b[2J\\u202e"}\n' * 50,
    b"x" * 200_000,
)


# --- The soak


def soak(house: House, gateway: Gateway, firings: int, say: Callable[[str], object]) -> list[tuple[int, float, int]]:
    """Submit firings of all kinds in batches, each after the last; return (firings so far, MiB, descriptors) each time."""
    batch = max(1, firings // 20)
    seen = []
    for begin in range(0, firings, batch):
        _submit_batch(house, range(begin, min(begin + batch, firings)))
        until(lambda: not _left(house), "the final outcomes of a batch", 600)
        seen.append((min(begin + batch, firings), round(memory(gateway), 1), descriptors(gateway)))
        say(f"{seen[-1][0]:>7,} firings  {seen[-1][1]:>6} MiB  {seen[-1][2]} descriptors")
    return seen


def _left(house: House) -> int:
    pong = ask(house, {"ping": True})
    return int(pong["waiting"]) + int(pong["running"])


def _submit_batch(house: House, numbers: range) -> None:
    with connect(house) as caller:
        lines = b"".join(json.dumps(_firing(number)).encode() + b"\n" for number in numbers)
        with caller.makefile("rb") as answers:
            for begin in range(0, len(lines), 100_000):
                caller.sendall(lines[begin : begin + 100_000])
                # Answers are read on the way: else both sides wait for each other.
                caller.setblocking(True)
                for _ in range(lines.count(b"\n", begin, begin + 100_000)):
                    assert json.loads(answers.readline())["status"] == "accepted"


def _firing(number: int) -> dict[str, Any]:
    kind = "prompt" if number % 200 == 0 else "text"
    to = "nosuchchat:1" if number % 50 == 1 else f"sink:{number % 100}"
    return {
        "id": f"soak-{number}",
        "reminder": f"r{number % 100}",
        "overlap": "queue",
        "to": to,
        kind: "x" * 100,
        "wait": False,
    }


def main() -> None:
    """Run the attacks, or a soak, at full size, and print what was seen."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", choices=["attacks", "soak"])
    arguments.add_argument("--firings", type=int, default=100_000)
    given = arguments.parse_args()
    house = House(lambda _: "the model's reply")
    try:
        # Bub keeps what stands on a tape in memory, which is not what this is about.
        gateway = house.gateway(BUB_CRON_MAX_WAITING="30000", TESTCHAT_SHORT_TAPES="1")
        if given.what == "soak":
            began = time.monotonic()
            seen = soak(house, gateway, given.firings, print)
            print(f"in {time.monotonic() - began:.0f} s: from {seen[1][1:]} to {seen[-1][1:]} (MiB, descriptors)")
        else:
            _attack(house, gateway)
    finally:
        house.close()


def _attack(house: House, gateway: Gateway) -> None:
    is_well(house)
    print(f"before: {memory(gateway):.0f} MiB, {descriptors(gateway)} descriptors")
    print(f"1,000 callers at once: {dict(crowd(house, 1000))}")
    is_well(house)
    print(f"no descriptors left: {no_descriptors(house, gateway)} of 20 callers wait")
    is_well(house)
    noise(house, 100 * MIB, 100)
    print(f"100 MiB from 100 callers: at most {memory(gateway, 'VmHWM'):.0f} MiB")
    until(lambda: not _left(house), "the end of what was accepted", 600)
    is_well(house)
    print(f"after: {memory(gateway):.0f} MiB, {descriptors(gateway)} descriptors")
    print(f"log: {gateway.log.stat().st_size / MIB:.1f} MiB")


if __name__ == "__main__":
    main()
