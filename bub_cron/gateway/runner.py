"""Who may start: take each accepted firing to its final outcome, in order, within its limits.

Invariants:
- Among firings, one turn at a time per session, in the order of acceptance; a firing also waits for a user's turn in its
  session, at most ten minutes. At most `max_concurrent` turns run at once, and whoever waits for a session holds none of
  these places. A `text` waits for no turn; with a gate, for a place.
- Nothing starts before `begin()`, which is called once the chats have started.
- Every wait has a limit, and a firing that can't start within its grace ends `missed`.
- One asyncio task drives one firing. When it ends for any reason but a stop, the firing has its final outcome.

What can't be read from the store is all in one `Hand` for each firing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from weakref import WeakValueDictionary

from loguru import logger

from bub_cron.errors import BubCronError, described
from bub_cron.gateway import gates, pings
from bub_cron.gateway.attempts import Attempts, RunGate
from bub_cron.gateway.delays import LATER_DELAY, wait_until
from bub_cron.gateway.delivery import Delivery
from bub_cron.gateway.faults import LogLimit, log_fault
from bub_cron.gateway.firing import Firing
from bub_cron.gateway.hand import SEND, WAITING, Hand
from bub_cron.gateway.inbox import Inbox, StaleError
from bub_cron.gateway.sends import TOO_LATE, Post, Sends
from bub_cron.gateway.sessions import UserTurns
from bub_cron.gateway.settling import LOST_IN_CRASH, LOST_IN_STOP, settle
from bub_cron.gateway.turns import GatewayStopsError, Turns
from bub_cron.states import RUNNING, SENDING
from bub_cron.wire import DEFAULT_LIFE, TEXT, Request

_FEW = 16
_CROWD_SECONDS = 0.001  # between two starts, while more than a few firings are to be started
_BURST_SECONDS = 0.050  # the same, while more are being accepted: a burst is on disk before it is worked off
_USER_WAIT = 600.0  # seconds that a firing waits for a user's turn
_SEND_STOP_WAIT = 4.0  # seconds that a send in flight gets when the gateway stops
_STOP_FOLLOWS_SECONDS = 60.0  # between the unbinding of the router and our own stop; more than Bub's channels take
_LINES_A_MINUTE = 120  # about what becomes of firings


class Runner:
    """Drives firings. `remember` is told of firings that reached a chat; `refusal` gives why a firing may not run here (any more);
    `now` gives epoch seconds.
    """

    def __init__(
        self,
        inbox: Inbox,
        turns: Turns,
        delivery: Delivery,
        users: UserTurns,
        *,
        max_concurrent: int,
        max_waiting: int,
        remember: Callable[[Firing], Awaitable[None]] | None = None,
        refusal: Callable[[Request], str | None] = lambda _: None,
        run_gate: RunGate = gates.run,
        post: Post = pings.post,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.now = now
        self._inbox = inbox
        self._lines = LogLimit(_LINES_A_MINUTE)
        self._attempts = Attempts(inbox, turns, self._lines, run_gate=run_gate, now=now)
        self._sends = Sends(inbox, delivery, self._lines, post=post, now=now)
        self._delivery = delivery
        self._users = users
        self._max_waiting = max_waiting
        self._remember = remember
        self._refusal = refusal
        self._begun = asyncio.Event()
        self._stopping = False
        self._hands: dict[str, Hand] = {}
        self._ended: set[str] = set()  # of these, those with nothing left but an alert or a ping
        self._accepting = 0  # requests that are on their way into the inbox
        self._queue: asyncio.Queue[Hand] = asyncio.Queue()
        self._starting = asyncio.create_task(self._start_each(), name="bub-cron runner")
        self._places = asyncio.Semaphore(max_concurrent)
        self._sessions: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    # --- For the listener and the channel

    @property
    def running(self) -> int:
        """How many firings are in a turn or a send."""
        return sum(hand.phase != WAITING for hand in self._hands.values())

    @property
    def waiting(self) -> int:
        """How many open firings are not."""
        return sum(hand.phase == WAITING and not hand.firing.is_final for hand in self._hands.values())

    @property
    def in_hand(self) -> list[Firing]:
        """Every firing that is still open, as it was last stored."""
        return [hand.firing for hand in self._hands.values() if not hand.firing.is_final]

    def begin(self) -> None:
        """Let firings start: the chats are there."""
        self._begun.set()

    async def accept(self, requests: Sequence[Request]) -> list[Firing | BubCronError | None]:
        """Take requests into the inbox, and in hand what is new of them; as `Inbox.accept`.

        It is carried out to its end even if the caller is cancelled: what the inbox has, the runner must have.
        """
        return await asyncio.shield(asyncio.ensure_future(self._accept(requests)))

    async def _accept(self, requests: Sequence[Request]) -> list[Firing | BubCronError | None]:
        # A monitor that is down keeps no firing out, until there are as many such firings as open ones may be.
        room = self._max_waiting - max(0, len(self._ended) - self._max_waiting)
        room -= len(self._hands) - len(self._ended) + self._accepting
        self._accepting += len(requests)
        try:
            accepted = await self._inbox.accept(requests, self.now(), room)
        finally:
            self._accepting -= len(requests)
        new = [firing for firing in accepted if isinstance(firing, Firing)]
        if new:  # a line for each would cost more than all the rest of it
            logger.info("cron.accepted count={} first={} last={}", len(new), new[0].id, new[-1].id)
        for firing in new:
            self.take(firing)
        return accepted

    def take(self, firing: Firing) -> None:
        """Drive a firing that is in the inbox, unless it is done with or in hand already."""
        is_done = firing.is_final and firing.next_message is None
        if not is_done and not self._stopping and firing.id not in self._hands:
            hand = self._hands[firing.id] = Hand(firing)
            self._queue.put_nowait(hand)

    async def _start_each(self) -> None:
        """Start one firing after the other, each in a round of the event loop; while a crowd waits, a millisecond later.

        Without that the loop would spin while thousands wait, and the store's thread, and with it every caller, would wait
        for the interpreter.
        """
        while True:
            hand = await self._queue.get()
            hand.task = asyncio.create_task(self._drive(hand), name=f"bub-cron {hand.firing.id}")
            hand.task.add_done_callback(lambda _, hand=hand: self._let_go(hand))  # type: ignore[misc]
            is_crowd = self._queue.qsize() > _FEW
            await asyncio.sleep((_BURST_SECONDS if self._accepting else _CROWD_SECONDS) if is_crowd else 0)

    def _let_go(self, hand: Hand) -> None:
        self._hands.pop(hand.firing.id, None)
        self._ended.discard(hand.firing.id)
        if hand.final is not None and not hand.final.done():
            hand.final.cancel()  # without an outcome, whoever waits learns by the end of the connection that none comes now

    def final(self, firing_id: str) -> asyncio.Future[Firing] | None:
        """Return what will hold the firing at its final outcome, one for all who wait; None if it isn't in hand.

        It is cancelled when the gateway stops before that.
        """
        hand = self._hands.get(firing_id)
        if hand is None or hand.firing.is_final:
            return None
        if hand.final is None:
            hand.final = asyncio.get_running_loop().create_future()
        return hand.final

    async def stop(self) -> None:
        """End what runs: turns go back to the inbox, a send in flight gets a few seconds. All is on disk afterwards."""
        self._stopping = True
        self._starting.cancel()
        hands = list(self._hands.values())
        tasks = {hand.task for hand in hands if hand.task is not None}
        for hand in hands:
            if hand.task is None:
                self._let_go(hand)
            elif hand.phase != SEND:
                hand.task.cancel()
        for _ in range(2):
            if tasks:
                _, tasks = await asyncio.wait(tasks, timeout=_SEND_STOP_WAIT)
            for task in tasks:
                task.cancel()

    # --- One firing's way

    async def _drive(self, hand: Hand) -> None:
        try:
            is_told = hand.firing.is_final
            await self._begin_or_end(hand)
            while not hand.firing.is_final:
                await self._step(hand)
            if not is_told:
                self._tell_outcome(hand)
                if self._remember is not None and hand.firing.reached:
                    await self._remember(hand.firing)
            self._ended.add(hand.firing.id)
            while hand.firing.next_message is not None:
                await self._step(hand)
        except asyncio.CancelledError:
            await self._stopped(hand)
            raise
        except StaleError as error:
            log_fault(f"cron.stale id={hand.firing.id}", error)
        except BaseException as error:
            # A fault of ours. The firing must not hang without an outcome, nor may the gateway feel it.
            log_fault(f"cron.fault id={hand.firing.id}", error)
            await self._end_in_fault(hand, f"a fault of bub-cron: {described(error)}")

    async def _step(self, hand: Hand) -> None:
        """Take a firing one step further: an attempt, or a send."""
        firing = hand.firing
        try:
            if firing.is_final or firing.text is not None:
                await self._sends.next(hand)
            else:
                await self._attempt(hand)
        except GatewayStopsError as error:
            await self._wait_for_the_stop(hand, error)
        hand.phase = WAITING

    async def _attempt(self, hand: Hand) -> None:
        firing, request = hand.firing, hand.firing.request
        await wait_until(firing.not_before, self.now() + LATER_DELAY, self.now)
        refusals = [self._delivery.refusal(to) for to in (request.to, *request.also)]
        if refusal := all(refusals) and refusals[0]:
            hand.firing = await self._inbox.move(firing, "refuse", self.now(), reason="no_channel", error=refusal)
            return
        if refusal := self._refusal(request):
            hand.firing = await self._inbox.move(firing, "fail", self.now(), reason="not_allowed", error=refusal)
            return
        async with AsyncExitStack() as held:
            session = None if request.kind == TEXT else request.session
            if await self._hold_place(held, session, request.expires):
                await self._attempts.run(hand, self._delivery.limit_words(request.to))
                return
        hand.firing = await self._late(firing)

    async def _stopped(self, hand: Hand) -> None:
        """Settle what the stop has ended. Where the disk refuses, it is cancelled, and the next start settles it."""
        if hand.phase == WAITING and hand.firing.state != RUNNING:
            return
        try:
            # Read again, behind a move that was asked for and not yet answered.
            firing = await self._inbox.get(hand.firing.id)
            if firing is not None:
                await settle(self._inbox, firing, self.now(), hand.phase)
        except BubCronError as error:
            logger.warning("cron.stop id={} not recorded: {}", hand.firing.id, error)

    async def _begin_or_end(self, hand: Hand) -> None:
        """Wait until firings may start; end one that waits for that beyond its grace."""
        firing = hand.firing
        has_begun = firing.is_final or firing.reply is not None or firing.sends > 0
        limit = firing.request.expires - self.now()
        try:
            async with asyncio.timeout(max(0.0, limit, DEFAULT_LIFE if has_begun else 0.0)):
                await self._begun.wait()
        except TimeoutError:
            hand.firing = await self._late(firing)

    async def _late(self, firing: Firing) -> Firing:
        """End a firing that can't start, or start again, within its grace."""
        now = self.now()
        if firing.is_final:
            return firing
        if firing.reply is not None or firing.sends:
            error = "the gateway's channels have not started"
            return await self._inbox.move(firing, "refuse", now, reason="refused", error=error)
        if not firing.attempts:
            return await self._inbox.move(firing, "miss", now, reason="late", error=TOO_LATE)
        if firing.has_side_effects and firing.error in (LOST_IN_CRASH, LOST_IN_STOP):
            return await self._inbox.move(firing, "lose", now, reason="lost_turn")
        return await self._inbox.move(firing, "fail", now, reason="attempts")

    async def _wait_for_the_stop(self, hand: Hand, error: GatewayStopsError) -> None:
        """Bub's router is unbound, which a stop begins with. If none follows, a turn's output went nowhere.

        A message has not been sent: it goes on while its time lasts.
        """
        logger.info("cron.held id={}: {}", hand.firing.id, error)
        await asyncio.sleep(_STOP_FOLLOWS_SECONDS)
        firing, now, why = hand.firing, self.now(), f"{error}, and the gateway did not stop"
        if firing.is_final:
            return
        if firing.text is None:
            hand.firing = await self._inbox.move(firing, "lose", now, reason="moved", error=why)
        elif now > firing.request.expires:
            hand.firing = await self._inbox.move(firing, "refuse", now, reason="refused", error=why)

    async def _end_in_fault(self, hand: Hand, error: str) -> None:
        now = self.now()
        with suppress(StaleError):
            for reply in hand.firing.replies:
                if reply.state == SENDING:
                    hand.firing = await self._inbox.move_message(
                        hand.firing, reply, "lose", now, reason="fault", error=error
                    )
            if not hand.firing.is_final:
                hand.firing = await self._inbox.move(hand.firing, "fail", now, reason="fault", error=error)
            self._tell_outcome(hand)

    def _tell_outcome(self, hand: Hand) -> None:
        firing = hand.firing
        self._lines.log(
            "INFO" if firing.error is None else "WARNING",
            "cron.{} id={} to={} attempts={} sends={} seconds={} error={}",
            firing.state, firing.id, firing.request.to, firing.attempts, firing.sends, firing.seconds, firing.error,
        )  # fmt: skip
        if hand.final is not None and not hand.final.done():
            hand.final.set_result(firing)

    # --- Sessions and places

    async def _hold_place(self, held: AsyncExitStack, session: str | None, expires: float) -> bool:
        """Hold a session (if there is one) and one of the places for turns, until `held` ends.

        Returns False if they don't come in time.
        """
        lock = None if session is None else self._sessions.setdefault(session, asyncio.Lock())
        came = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(0.0, expires - self.now())):
                if session is None or lock is None:
                    await self._places.acquire()
                else:
                    await held.enter_async_context(lock)
                    await self._place_beside_nobody(session, came)
                held.callback(self._places.release)
        except TimeoutError:
            return False
        return self.now() <= expires

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
