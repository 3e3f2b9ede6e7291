"""Our lifecycle channel: brings the gateway side up when the gateway starts, and down when it stops.

Invariants:
- Making the channel has no side effect, since Bub makes it without a gateway too; `start` returns at once, and whatever
  goes wrong in ours is logged and leaves the gateway alone.
- Only a gateway serves the socket: `bub chat`, which has an interface and no chats, never does.
- One gateway owns a state directory and a socket; a second one waits for both.
- SIGTERM ends the gateway as cleanly as SIGINT, unless somebody else has a handler for it.
- Everything is taken down in the reverse order of its start: no new requests, then the firings, then the store, then the
  ownership.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import os
import signal
import sys
from collections.abc import AsyncIterable, Awaitable, Callable
from contextlib import AsyncExitStack
from importlib.metadata import version
from itertools import count
from typing import TYPE_CHECKING, Any

from bub import BubFramework
from bub.channels import Channel, ChannelMessage, Interface, Lifecycle
from bub.channels.contracts import MessageHandler
from bub.configure import ensure_config, get_value
from bub.streaming import StreamEvent
from loguru import logger

from bub_cron import __version__
from bub_cron.errors import StoreError, described
from bub_cron.gateway.address import BoundSocket, Ownership, TakenError
from bub_cron.gateway.chat.callers import Desk
from bub_cron.gateway.commands import CommandRule
from bub_cron.gateway.connection import Service
from bub_cron.gateway.delivery import Channels, Delivery
from bub_cron.gateway.environment import gateway_environ
from bub_cron.gateway.inbox import Inbox
from bub_cron.gateway.listener import Listener
from bub_cron.gateway.memory import Memory
from bub_cron.gateway.readiness import Readiness
from bub_cron.gateway.runner import Runner
from bub_cron.gateway.seen import Seen
from bub_cron.gateway.sessions import UserTurns
from bub_cron.gateway.settings import OFF, CronSettings
from bub_cron.gateway.settling import recover
from bub_cron.gateway.turns import CHANNEL, Turns
from bub_cron.paths import chat_file, find_paths
from bub_cron.wire import PROTOCOL, iso
from bub_cron.writable import why_not_writable

if TYPE_CHECKING:
    from bub_cron.gateway.chat.book import Book

_CHORE_SECONDS = 30.0
_CHORES_A_DAY = int(86400 / _CHORE_SECONDS)
_TAKEOVER_SECONDS = 1.0  # between a waiting gateway's looks at the locks; only a second gateway ever looks


class CronChannel(Lifecycle):
    """The gateway side of bub-cron. Nobody can write to it or be reached by it."""

    name = CHANNEL

    def __init__(
        self,
        framework: BubFramework,
        message_handler: MessageHandler,
        turns: Turns,
        users: UserTurns,
        readiness: Readiness,
        desk: Desk,
        seen: Seen,
    ) -> None:
        self._framework = framework
        self._message_handler = message_handler
        self._turns = turns
        self._users = users
        self._readiness = readiness
        self._desk = desk
        self._seen = seen
        self._service: asyncio.Task[None] | None = None
        self._handles_sigterm = False

    async def start(self, stop_event: asyncio.Event) -> None:
        # The handler is a bound method of the channel manager: the one public way to the channels that are enabled.
        manager: Channels | None = getattr(self._message_handler, "__self__", None)
        if manager is None or not hasattr(manager, "enabled_channels") or not hasattr(manager, "get_channel"):
            logger.error("cron.off: this is no gateway that tells its channels, so nothing could be delivered")
            return
        if not _has_chats(manager):
            logger.debug("cron.off: no gateway, but a chat on a terminal")
            return
        self._readiness.begin()
        self._handles_sigterm = _handle_sigterm(stop_event, self._readiness)
        self._service = asyncio.create_task(self._serve(manager), name="bub-cron")
        await self._message_handler(self._readiness.sentinel())

    async def stop(self) -> None:
        if self._handles_sigterm:
            self._handles_sigterm = not asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)
        if self._service is not None:
            if not self._service.cancelling():  # a second time would break off what the first began
                self._service.cancel()
            await asyncio.wait({self._service})
            self._service = None

    async def send(self, message: ChannelMessage) -> None:
        """Take what Bub sends for our turns and show it to nobody: delivering it is the runner's."""
        logger.debug("cron.taken kind={} session={}", message.kind, message.session_id)

    def stream_events(self, message: ChannelMessage, stream: AsyncIterable[StreamEvent]) -> AsyncIterable[StreamEvent]:
        return self._turns.capture(message, stream)

    async def _serve(self, manager: Channels) -> None:
        said = ""
        while True:
            async with AsyncExitStack() as stack:
                try:
                    runner = await self._bring_up(manager, stack)
                except Exception as error:
                    # Without a socket every tick says that there is no gateway; the reason stands here, once.
                    if (why := described(error)) != said:
                        logger.error("cron.off: {}; tried again every {:g} s", why, _CHORE_SECONDS)
                        said = why
                else:
                    await self._readiness.wait()
                    _spare_the_collector(stack)
                    runner.begin()
                    logger.info("cron.ready")
                    await asyncio.Event().wait()  # until stop() cancels
            await asyncio.sleep(_CHORE_SECONDS)

    async def _bring_up(self, manager: Channels, stack: AsyncExitStack) -> Runner:
        settings = ensure_config(CronSettings)
        paths = find_paths(gateway_environ())
        for place in (paths.inbox, paths.socket):
            stack.callback((await _own(place)).release)
        inbox = Inbox(paths.inbox)
        await inbox.open()
        stack.push_async_callback(inbox.close)
        delivery = Delivery(self._framework, manager)
        stack.callback(delivery.close)
        await self._seen.load(inbox)
        stack.push_async_callback(_keep_seen, self._seen, inbox, delivery)
        rule = CommandRule(
            str(get_value("command_prefix", ",")),
            allowed=settings.allow_commands,
            gates_allowed=settings.allow_gates,
        )
        runner = Runner(
            inbox,
            self._turns,
            delivery,
            self._users,
            max_concurrent=settings.max_concurrent,
            max_waiting=settings.max_waiting,
            remember=Memory(self._framework).note,
            refusal=rule.refusal,
        )
        stack.push_async_callback(runner.stop)
        for firing in await recover(inbox, runner.now()):
            runner.take(firing)
        stack.callback(self._desk.close)
        self._desk.book = _book(
            paths, settings.chat, no_way=delivery.refusal, refusal=rule.refusal, accept=runner.accept, now=runner.now
        )
        # Once: it reads files, and a caller may ask as often as it likes.
        about = _about(iso(runner.now()), settings, chat_file(paths.file))
        not_enabled = {"not_enabled": found} if (found := delivery.not_enabled()) else {}
        service = Service(
            inbox,
            runner,
            rule,
            lambda: {
                **about,
                **_chat_error(about),
                "channels": delivery.targets(),
                **not_enabled,
                **_unknown_tools(self._turns),
                **self._readiness.answer(),
            },
            lambda: self._seen.answer(delivery.targets()),
        )
        listener = Listener(service, settings.uids)
        stack.push_async_callback(listener.close)
        # Other users can only be let in by the socket's mode; who of them may talk is decided by their uid.
        await listener.start(BoundSocket(paths.socket, 0o666 if settings.uids else 0o600))
        logger.info("cron.listening socket={} inbox={}", paths.socket, paths.inbox)
        if not delivery.targets():
            logger.warning(
                "cron.no_chat: no chat is enabled, so no reminder can be delivered; `bub onboard` sets one up"
            )
        chores = asyncio.create_task(
            _chores(listener, inbox, runner, settings, lambda: self._seen.store(inbox, delivery.targets())),
            name="bub-cron chores",
        )
        stack.callback(chores.cancel)
        return runner


def _book(*given: Any, **named: Any) -> Callable[[], Book]:
    """Return what gives the one book. Until somebody asks for it, what reads and judges reminders is not in memory."""

    @functools.cache
    def book() -> Book:
        from bub_cron.gateway.chat.book import Book

        return Book(*given, **named)

    return book


async def _keep_seen(seen: Seen, inbox: Inbox, delivery: Delivery) -> None:
    """Write at the end which chats were seen, if the disk takes it: they are not worth waiting for."""
    try:
        await seen.store(inbox, delivery.targets(), all_=True)
    except StoreError as error:
        logger.warning("cron.chats: {}", error)


async def _chores(
    listener: Listener,
    inbox: Inbox,
    runner: Runner,
    settings: CronSettings,
    keep_seen: Callable[[], Awaitable[None]],
) -> None:
    """Twice a minute, see that the socket and the store are where others look for them, and hold all that is in hand and
    the chats that were seen, and drop what is beyond the store's size; once a day, drop old records.
    """
    for chore in count():
        try:
            if chore % _CHORES_A_DAY == 0:
                await inbox.prune_old(runner.now(), settings.keep_days)
            await inbox.prune_to(settings.keep_mib << 20)
            await listener.look_after_place()
            await inbox.keep(runner.in_hand)
            await keep_seen()
        except Exception as error:
            # Whatever it was (a fault of ours, too): the next look may be the one that finds the socket gone.
            logger.warning("cron.chores: {}", described(error))
        await asyncio.sleep(_CHORE_SECONDS)


def _spare_the_collector(stack: AsyncExitStack) -> None:
    """Have the garbage collector look no more at what is there, Bub and all its channels, until the end.

    Each full round through that holds the event loop for 100 ms and more, and a burst of firings would bring several about.
    """
    gc.freeze()
    stack.callback(gc.unfreeze)


def _about(since: str, settings: CronSettings, chat_file: str) -> dict[str, Any]:
    return {
        "version": __version__,
        "bub": version("bub"),
        "protocol": PROTOCOL,
        "pid": os.getpid(),
        "python": sys.executable,
        "since": since,
        "commands": settings.allow_commands,
        "gates": settings.allow_gates,
        "chat": settings.chat,
        "chat_file": chat_file,
    }


def _chat_error(about: dict[str, Any]) -> dict[str, str]:
    """Say why no reminder can be made in chat; each time anew, since who asks may just have put it right."""
    why = "" if about["chat"] == OFF else why_not_writable(about["chat_file"])
    return {"chat_error": why} if why else {}


def _unknown_tools(turns: Turns) -> dict[str, dict[str, list[str]]]:
    return {"unknown_tools": turns.unknown_tools} if turns.unknown_tools else {}


def _has_chats(manager: Channels) -> bool:
    """Tell a gateway from `bub chat`: that one has an interface and, besides lifecycle channels, nothing else."""
    enabled: list[Channel] = manager.enabled_channels()
    interface = any(isinstance(channel, Interface) for channel in enabled)
    chat = any(not isinstance(channel, Interface | Lifecycle) for channel in enabled)
    return chat or not interface


async def _own(place: str) -> Ownership:
    """Take the ownership of a place, waiting for another gateway to end if need be."""
    said = False
    while True:
        try:
            return Ownership(place)
        except TakenError as error:
            if not said:
                logger.warning("cron.waiting: {}; this one takes over when that one ends", error)
                said = True
        await asyncio.sleep(_TAKEOVER_SECONDS)


def _handle_sigterm(stop_event: asyncio.Event, readiness: Readiness) -> bool:
    """Stop the gateway cleanly on SIGTERM, if nobody else cares for it; return whether it is handled from now on."""

    def stop() -> None:
        stop_event.set()
        if not readiness.is_ready:
            # Nobody looks at the event yet, and the start() of a later channel may never return. This cancels all tasks.
            raise SystemExit(0)

    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return False
    try:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    except (RuntimeError, ValueError) as error:  # not in the main thread
        logger.warning("cron.sigterm: can't be handled here, so it ends the gateway at once: {}", error)
        return False
    return True
