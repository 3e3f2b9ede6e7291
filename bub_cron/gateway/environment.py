"""The environment in which our side of Bub finds its places.

Invariants: both sides find the same places, so what a cron job can't see doesn't count.
"""

from __future__ import annotations

import os

from dotenv import dotenv_values, find_dotenv
from loguru import logger

from bub_cron.paths import VARIABLES


def gateway_environ() -> dict[str, str]:
    """Return the environment without those of our paths that only a `.env` file sets, for no cron job sees that file.

    Bub loads `.env` into its environment before any plugin is there. What the process was started with is in
    /proc/self/environ; where that can't be read, `.env` counts.
    """
    environ = dict(os.environ)
    try:
        with open("/proc/self/environ", "rb") as file:
            given = {entry.partition(b"=")[0].decode(errors="replace") for entry in file.read().split(b"\0")}
    except OSError:
        return environ
    in_dotenv = dotenv_values(find_dotenv(usecwd=True))
    for name in VARIABLES:
        if name in environ and name not in given and environ[name] == in_dotenv.get(name):
            logger.warning("cron.paths: {} stands only in .env, which no cron job sees; it is not used", name)
            del environ[name]
    return environ
