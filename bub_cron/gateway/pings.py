"""Tell a monitor how a firing ended: one POST. alerts.py has the address for each outcome.

Invariants:
- The address is a secret: it is in no log, and in no error. So httpx's client, which logs each address, isn't used.
- A ping never waits longer than `SECONDS`, and never holds up the event loop: reading the certificates that are trusted
  takes up to a third of a second, so it is done once, in a thread.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import threading

import httpx

from bub_cron.errors import BubCronError, one_line

SECONDS = 10.0
DELAYS = (5.0, 20.0)
"""Seconds between the tries; after the last one a ping is given up."""


class PingRefusedError(BubCronError):
    """The monitor did not take the ping; it may be tried again."""


_reading = threading.Lock()


@functools.cache
def _read_certificates() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _certificates() -> ssl.SSLContext:
    with _reading:  # so that many pings at once read them once
        return _read_certificates()


async def post(url: str, body: str) -> None:
    """Make one POST; raise PingRefusedError, which names no address, if the answer is no 2xx in time."""
    try:
        async with asyncio.timeout(SECONDS):
            trusted = await asyncio.to_thread(_certificates)
            async with httpx.AsyncHTTPTransport(verify=trusted) as transport:
                request = httpx.Request("POST", url, content=body.encode(), headers={"User-Agent": "bub-cron"})
                response = await transport.handle_async_request(request)
                await response.aclose()
    except TimeoutError as error:
        raise PingRefusedError(f"the ping was not answered within {SECONDS:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, httpx.CookieConflict, OSError, ValueError) as error:
        # Its text may hold the address.
        raise PingRefusedError(f"the ping failed: {type(error).__name__}") from error
    if not response.is_success:
        raise PingRefusedError(
            f"the ping was answered {response.status_code} {one_line(response.reason_phrase, 60)}".strip()
        )
