"""Zone data of a test's own, and directories of it."""

from __future__ import annotations

import struct
from pathlib import Path

HOUR = 3600


def zone_data(first: int, *changes: tuple[int, int]) -> bytes:
    """Return the TZif file (RFC 9636) of a zone: its first offset, then (instant, offset) of each change."""
    offsets = sorted({first, *(offset for _, offset in changes)})
    header = b"TZif2" + bytes(15)
    types = b"".join(struct.pack(">lbB", offset, 0, 0) for offset in [first, *offsets])
    block = b"".join(struct.pack(">q", instant) for instant, _ in changes)
    block += bytes(1 + offsets.index(offset) for _, offset in changes) + types + b"XXX\0"
    counts = struct.pack(">6l", 0, 0, 0, len(changes), 1 + len(offsets), 4)
    old_block = struct.pack(">lbB", first, 0, 0) + b"XXX\0"
    old_counts = struct.pack(">6l", 0, 0, 0, 0, 1, 4)
    return header + old_counts + old_block + header + counts + block + b"\n\n"


def install(directory: Path, **zones: bytes) -> None:
    """Put zones into a database at a directory, as a package does: each file is another one afterwards."""
    for name, data in zones.items():
        path = directory / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.replace(path)
