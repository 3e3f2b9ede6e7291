"""Take each accepted firing to its last word.

Kept true here:
- Each step is on disk before the next begins; a step that can't be written is repeated, never left out.
- Among firings, one turn at a time per session, in the order of acceptance; a firing also waits for a user's turn in its
  session, at most ten minutes. At most `max_concurrent` turns run at once, and whoever waits for a session holds none of
  these places. A `text` waits for no turn.
- Nothing starts before `begin()`, which is called once the chats have started.
- One asyncio task drives one firing; when it ends for any reason but a stop, the firing has its last word.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

from loguru import logger

from bub_cron.errors import BubCronError, StoreError, described
from bub_cron.gateway.delivery import Delivery, SendRefusedError, SendUnseenError
from bub_cron.gateway.faults import log_fault
from bub_cron.gateway.firing import LOST_IN_STOP, Firing
from bub_cron.gateway.inbox import Inbox, StaleFiringError
from bub_cron.gateway.sessions import UserTurns
from bub_cron.gateway.turns import GatewayStopsError, Reply, TurnFailedError, Turns
from bub_cron.states import DELIVERED, FAILED, MISSED, RAN, SILENT, UNDELIVERED, UNKNOWN
from bub_cron.wire import COMMAND, NO_REPLY, TEXT, split_to

_ATTEMPT_DELAYS = (30.0, 120.0)  # after the first and the second failed attempt; then
_SEND_DELAYS = (30.0, 30.0, 120.0)  # after a refused send; then
_LATER_DELAY = 300.0
_SENDS_AT_LEAST = 3
_CROWD_SECONDS = 0.001  # between two starts, while more than a few firings are to be started
_FEW = 16
_SENDS_AT_ONCE = 8  # to one channel: chats limit how fast a bot may talk
_USER_WAIT = 600.0  # seconds that a firing waits for a user's turn
_SEND_STOP_WAIT = 4.0  # seconds that a send in flight gets when the gateway stops
_TOO_LATE = "too late to start by the time it could"
_NO_OUTPUT = "(no output)"  # what Bub returns for a command that printed nothing


class _TooLateError(BubCronError):
    """The firing may not start any more."""


def attempt_delay(attempts: int) -> float:
    """Return the seconds between a failed attempt, the `attempts`-th, and the next."""
    return _nth(_ATTEMPT_DELAYS, attempts)


def _send_delay(sends: int) -> float:
    return _nth(_SEND_DELAYS, sends)


def _nth(delays: tuple[float, ...], number: int) -> float:
    return delays[number - 1] if number <= len(delays) else _LATER_DELAY


class Runner:
    """Drives firings. `remember` is told what was delivered; `refusal` gives why a firing may not run here (any more);
    `now` gives epoch seconds; `sleep` waits seconds.
    """

    def __init__(
        self,
        inbox: Inbox,
        turns: Turns,
        delivery: Delivery,
        users: UserTurns,
        *,
        max_concurrent: int,
        remember: Callable[[Firing], Awaitable[None]] | None = None,
        refusal: Callable[[Firing], str | None] = lambda _: None,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._inbox = inbox
        self._turns = turns
        self._delivery = delivery
        self._users = users
        self._remember = remember
        self._refusal = refusal
        self.now = now
        self._sleep = sleep
        self._begun = asyncio.Event()
        self._stopping = False
        self._queue: dict[str, Firing] = {}  # taken, and not yet set off
        self._pump: asyncio.Task[None] | None = None
        self._drives: dict[str, asyncio.Task[None]] = {}
        self._busy: set[str] = set()  # ids in a turn or a send
        self._sending: set[str] = set()  # ids in a send
        self._finals: dict[str, asyncio.Future[Firing]] = {}
        self._notices: set[asyncio.Task[None]] = set()
        self._places = asyncio.Semaphore(max_concurrent)
        self._sessions: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._lanes: dict[str, asyncio.Semaphore] = {}

    # --- For the listener and the channel

    @property
    def running(self) -> int:
        """How many firings are in a turn or a send."""
        return len(self._busy)

    @property
    def waiting(self) -> int:
        """How many firings without a last word are not."""
        return len(self._queue) + len(self._drives) - len(self._busy)

    def begin(self) -> None:
        """Let firings start: the chats are there."""
        self._begun.set()

    def take(self, firing: Firing) -> None:
        """Drive a firing that is in the inbox and has no last word, unless it is driven already."""
        if self._stopping or firing.id in self._drives or firing.id in self._queue:
            return
        self._queue[firing.id] = firing
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._start_queued(), name="bub-cron queue")

    async def _start_queued(self) -> None:
        """Set firings off in the order in which they came, one in each round of the event loop.

        While thousands wait, the loop sleeps in between: else it would spin, and the store's thread, and with it every
        caller whose request is to be accepted, would wait for the interpreter.
        """
        while self._queue:
            firing_id, firing = next(iter(self._queue.items()))
            del self._queue[firing_id]
            self._drives[firing_id] = asyncio.create_task(self._drive(firing), name=f"bub-cron {firing_id}")
            await asyncio.sleep(0 if len(self._queue) < _FEW else _CROWD_SECONDS)

    def final(self, firing_id: str) -> asyncio.Future[Firing] | None:
        """Return the future of a firing's final outcome, one for all who wait for it; None if the firing isn't in hand.

        It is cancelled if no outcome comes in this gateway. Take back what you added to it if you don't wait any more.
        """
        if firing_id not in self._drives and firing_id not in self._queue:
            return None
        return self._final(firing_id)

    def _final(self, firing_id: str) -> asyncio.Future[Firing]:
        if firing_id not in self._finals:
            self._finals[firing_id] = asyncio.get_running_loop().create_future()
        return self._finals[firing_id]

    async def stop(self) -> None:
        """End what runs: turns go back to the inbox, a send in flight gets a few seconds. All is on disk afterwards."""
        self._stopping = True
        self._queue.clear()
        for firing_id, drive in self._drives.items():
            if firing_id not in self._sending:
                drive.cancel()
        for notice in self._notices:
            notice.cancel()
        drives = set(self._drives.values())
        if drives:
            _, late = await asyncio.wait(drives, timeout=_SEND_STOP_WAIT)
            for drive in late:
                drive.cancel()
            if late:
                await asyncio.wait(late, timeout=_SEND_STOP_WAIT)
        for final in self._finals.values():
            final.cancel()

    # --- One firing's way

    async def _drive(self, firing: Firing) -> None:
        try:
            if not self._begun.is_set():
                await self._begun.wait()
            while not firing.is_final:
                await self._wait_until(firing.not_before)
                firing = await (self._attempt(firing) if firing.reply is None else self._deliver(firing))
        except GatewayStopsError as error:
            logger.info("cron.held id={} for the next start: {}", firing.id, error)
        except StaleFiringError as error:
            log_fault(f"cron.stale id={firing.id}", error)
        except Exception as error:
            # A fault of ours. The firing must not hang without a word, nor may the gateway feel it.
            log_fault(f"cron.fault id={firing.id}", error)
            await self._end(firing, FAILED, f"a fault of bub-cron: {described(error)}")
        finally:
            self._drives.pop(firing.id, None)
            self._busy.discard(firing.id)
            self._sending.discard(firing.id)
            # Without a last word, whoever waits for it learns by the end of the connection that none comes now.
            if final := self._finals.pop(firing.id, None):
                final.cancel()

    async def _wait_until(self, instant: float | None) -> None:
        if instant is not None and (seconds := instant - self.now()) > 0:
            # No delay is longer; an instant that is further away was written by a clock that was ahead.
            await self._sleep(min(seconds, _LATER_DELAY))

    # --- The turn

    async def _attempt(self, firing: Firing) -> Firing:
        if refusal := self._delivery.refusal(firing.to):
            return await self._end(firing, UNDELIVERED, refusal)
        if refusal := self._refusal(firing):
            return await self._end(firing, FAILED, refusal)
        try:
            async with self._place(firing):
                self._busy.add(firing.id)
                try:
                    return await self._turn(firing)
                finally:
                    self._busy.discard(firing.id)
        except _TooLateError as error:
            if firing.attempts:
                return await self._end(firing, UNKNOWN if firing.may_have_acted else FAILED, firing.error)
            return await self._end(firing, MISSED, str(error))

    @asynccontextmanager
    async def _place(self, firing: Firing) -> AsyncIterator[None]:
        """Hold the firing's session and one of the places for turns; `_TooLateError` if they don't come in time."""
        session = self._sessions.setdefault(firing.session, asyncio.Lock())
        came = asyncio.get_running_loop().time()
        async with AsyncExitStack() as held:
            try:
                async with asyncio.timeout(max(0.0, firing.expires - self.now())):
                    await held.enter_async_context(session)
                    await self._place_beside_nobody(firing.session, came)
                    held.callback(self._places.release)
            except TimeoutError as error:
                raise _TooLateError(_TOO_LATE) from error
            if self.now() > firing.expires:
                raise _TooLateError(_TOO_LATE)
            yield

    async def _place_beside_nobody(self, session: str, came: float) -> None:
        """Acquire a place at a moment at which no user's turn runs in the session; after ten minutes, at any.

        Ten minutes of a turn that runs since before the firing `came` are over for those behind it in the session, too:
        else they would be let through one in ten minutes, and the last ones never.
        """
        loop = asyncio.get_running_loop()
        busy_since = self._users.busy_since(session)
        deadline = _USER_WAIT + (loop.time() if busy_since is None else max(came, busy_since))
        while True:
            await self._users.idle(session, deadline - loop.time())
            await self._places.acquire()
            # A user may have begun while all places were taken; then the place is for others meanwhile.
            if self._users.busy_since(session) is None or loop.time() >= deadline:
                return
            self._places.release()

    async def _turn(self, firing: Firing) -> Firing:
        begun = False
        try:
            firing = await self._insist(lambda: self._inbox.start_attempt(firing.id, self.now()))
            begun = True
            logger.info("cron.start id={} to={} attempt={}", firing.id, firing.to, firing.attempts)
            reply = await self._turns.run(firing)
        except asyncio.CancelledError:
            await self._stopped_in_turn(firing, begun=begun)
            raise
        except GatewayStopsError:
            await self._stopped_in_turn(firing, begun=True)
            raise
        except TurnFailedError as error:
            return await self._failed(firing, str(error), error.tokens)
        return await self._ended(firing, reply)

    async def _ended(self, firing: Firing, reply: Reply) -> Firing:
        """Judge a turn that ended without error."""
        # The marker is for us; whatever stands around it, no chat shows it.
        text = reply.text
        while NO_REPLY in text:
            text = text.replace(NO_REPLY, "").strip()
        if firing.reply_mode == "agent" or (firing.kind == COMMAND and text.strip() in ("", _NO_OUTPUT)):
            return await self._end(firing, RAN, None, reply.tokens)
        if text.strip():
            return await self._insist(lambda: self._inbox.keep_reply(firing.id, text, reply.tokens))
        if firing.quiet:
            return await self._end(firing, SILENT, None, reply.tokens)
        # Not tried again: the turn has done its work, and a model that sent by a skill says nothing more.
        meant = (
            f"the whole reply was {NO_REPLY}, which needs quiet: true" if NO_REPLY in reply.text else "an empty reply"
        )
        return await self._end(firing, FAILED, meant, reply.tokens)

    async def _failed(self, firing: Firing, error: str, tokens: int | None) -> Firing:
        again = self.now() + attempt_delay(firing.attempts)
        if firing.attempts < firing.attempts_allowed and again <= firing.expires:
            logger.warning("cron.retry id={} attempt={} error={}", firing.id, firing.attempts, error)
            return await self._insist(lambda: self._inbox.retry(firing.id, error, again, tokens))
        return await self._end(firing, FAILED, error, tokens)

    async def _stopped_in_turn(self, firing: Firing, *, begun: bool) -> None:
        """Put a turn that the stop has ended back; one that acts by itself counts, for it may have acted."""
        try:
            if not begun or not firing.acts_by_itself:
                await self._inbox.give_back(firing.id)
            elif firing.attempts < firing.attempts_allowed:
                await self._inbox.retry(firing.id, LOST_IN_STOP, self.now())
            else:
                await self._inbox.finish(firing.id, UNKNOWN, LOST_IN_STOP, self.now())
        except BubCronError as error:
            # Not insisted on, since the gateway is going: what is on disk says `running`, as after a crash.
            logger.warning("cron.stop id={} not recorded: {}", firing.id, error)

    # --- The send

    async def _deliver(self, firing: Firing) -> Firing:
        if refusal := self._delivery.refusal(firing.to):
            return await self._end(firing, UNDELIVERED, refusal)
        channel, _ = split_to(firing.to)
        async with AsyncExitStack() as held:
            lane = self._lanes.setdefault(channel, asyncio.Semaphore(_SENDS_AT_ONCE))
            if firing.kind == TEXT and not firing.sends:
                try:
                    async with asyncio.timeout(max(0.0, firing.expires - self.now())):
                        await held.enter_async_context(lane)
                except TimeoutError:
                    return await self._end(firing, MISSED, _TOO_LATE)
                if self.now() > firing.expires:
                    return await self._end(firing, MISSED, _TOO_LATE)
            else:
                await held.enter_async_context(lane)
            self._busy.add(firing.id)
            self._sending.add(firing.id)
            try:
                return await self._send(firing)
            finally:
                self._busy.discard(firing.id)
                self._sending.discard(firing.id)

    async def _send(self, firing: Firing) -> Firing:
        firing = await self._insist(lambda: self._inbox.begin_send(firing.id, self.now()))
        try:
            await self._delivery.send(firing, firing.reply or "")
        except asyncio.CancelledError:
            await self._end(firing, UNKNOWN, "the gateway stopped while the message was on its way")
            raise
        except GatewayStopsError:
            await self._insist(lambda: self._inbox.give_back(firing.id))
            raise
        except SendUnseenError as error:
            return await self._end(firing, UNKNOWN, str(error))
        except SendRefusedError as error:
            return await self._refused(firing, str(error))
        firing = await self._end(firing, DELIVERED, None)
        if self._remember is not None:
            await self._remember(firing)
        return firing

    async def _refused(self, firing: Firing, error: str) -> Firing:
        again = self.now() + _send_delay(firing.sends)
        if firing.sends < _SENDS_AT_LEAST or again <= firing.expires:
            logger.warning("cron.send_again id={} sends={} error={}", firing.id, firing.sends, error)
            return await self._insist(lambda: self._inbox.retry(firing.id, error, again))
        return await self._end(firing, UNDELIVERED, error)

    # --- Last words

    async def _end(self, firing: Firing, outcome: str, error: str | None, tokens: int | None = None) -> Firing:
        firing, tell = await self._insist(lambda: self._inbox.finish(firing.id, outcome, error, self.now(), tokens))
        logger.log(
            "INFO" if error is None else "WARNING",
            "cron.{} id={} to={} attempts={} sends={} seconds={} error={}",
            firing.state, firing.id, firing.to, firing.attempts, firing.sends, firing.seconds, error,
        )  # fmt: skip
        final = self._final(firing.id)  # kept until the drive ends, for who asks in between
        if not final.done():
            final.set_result(firing)
        if tell:
            self.tell(firing)
        return firing

    def tell(self, firing: Firing) -> None:
        """Tell the chat of a failure that the inbox says it is to hear of."""
        notice = asyncio.create_task(self._tell_of_failure(firing))
        self._notices.add(notice)
        notice.add_done_callback(self._notices.discard)

    async def _tell_of_failure(self, firing: Firing) -> None:
        await self._begun.wait()
        await self._insist(lambda: self._inbox.begin_notice(firing))
        try:
            await self._delivery.send(firing, f"The reminder {firing.reminder} failed: {firing.error}.")
        except SendUnseenError as error:
            logger.warning("cron.notice id={} may have been sent: {}", firing.id, error)
        except BubCronError as error:
            # Nothing arrived: the next failure is told instead.
            logger.warning("cron.notice id={} not sent: {}", firing.id, error)
            await self._insist(lambda: self._inbox.forget_notice(firing))

    async def _insist[Result](self, step: Callable[[], Awaitable[Result]]) -> Result:
        """Write a change of state; while the disk refuses, try again, since going on without it would lose it."""
        seconds = 1.0
        while True:
            try:
                return await step()
            except StoreError as error:
                logger.error("cron.store {}; trying again in {} s", error, seconds)
            await self._sleep(seconds)
            seconds = min(seconds * 2, 60.0)
