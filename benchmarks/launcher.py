"""Run one command and write what it used to file descriptor 3: seconds of CPU, peak memory in KiB, wait status.

A process of its own, and as small as Python gets (`-I -S`), because Linux counts into a command's peak memory what its
process held before it became that command. It forks rather than spawns: a spawned process would share this one's memory
until then, a forked one has only the written pages of it. What is left of that, `measure.floor_kib` tells.
"""

import os
import sys

process = os.fork()
if process == 0:
    os.close(3)
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 - a command line of the benchmark's own
_, status, used = os.wait4(process, 0)
os.write(3, f"{used.ru_utime + used.ru_stime} {used.ru_maxrss} {status}\n".encode())
