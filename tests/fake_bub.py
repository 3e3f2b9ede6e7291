"""A gateway in this process: the real framework and channel manager, with a chat, a model and a clock that are ours.

The clock is the event loop's: it stands still while anything happens, and jumps to the next timer when nothing does. So
ten minutes of waiting take no time, and every timeout in the code under test, whoever made it, goes by this one clock.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import json
import selectors
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from any_llm.types.completion import ChatCompletion
from bub import BubFramework, hookimpl
from bub.builtin.model_runner import ModelRunner
from bub.channels import Channel, ChannelManager, ChannelMessage, Interface, Lifecycle
from bub.errors import ErrorKind
from bub.store import InMemoryTapeStore
from bub.streaming import AsyncStreamEvents, StreamEvent
from loguru import logger

from bub_cron.gateway import gates, pings
from bub_cron.gateway.delivery import Delivery
from bub_cron.gateway.firing import Firing, Message
from bub_cron.gateway.inbox import Inbox
from bub_cron.gateway.plugin import CronPlugin
from bub_cron.gateway.runner import Runner
from bub_cron.gateway.settling import recover as recovered
from bub_cron.wire import Request, parse_request

NOON = 1_800_000_000.0  # the epoch seconds at which every test begins
_REAL_SECONDS_TO_HANG = 10.0


# --- The clock


class _Selector(selectors.DefaultSelector):
    """Waits for nothing but a thread at work: with nothing ready, time moves on instead."""

    clock: FakeClock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if self.clock.threads_at_work:
            ready = super().select(_REAL_SECONDS_TO_HANG)
            if not ready:
                raise AssertionError("a thread hangs")
            return ready
        if timeout is None:
            raise AssertionError("nothing will ever happen any more: the test waits for what doesn't come")
        self.clock.seconds += timeout
        return []


class FakeClock(asyncio.SelectorEventLoop):
    """An event loop in which time passes only when nothing else can happen."""

    def __init__(self) -> None:
        selector = _Selector()
        selector.clock = self
        self.seconds = 0.0
        self.threads_at_work = 0
        super().__init__(selector)

    def time(self) -> float:
        return self.seconds

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        future: asyncio.Future[Any] = super().run_in_executor(executor, func, *args)
        self.threads_at_work += 1
        future.add_done_callback(lambda _: self._thread_is_done())
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        with _at_work():
            await super().shutdown_default_executor(timeout)

    def _thread_is_done(self) -> None:
        self.threads_at_work -= 1


def run[Result](main: Coroutine[Any, Any, Result]) -> Result:
    """Run a test's coroutine under a fake clock."""
    with asyncio.Runner(loop_factory=FakeClock) as runner:
        return runner.run(main)


type CoroutineTest = Callable[..., Coroutine[Any, Any, None]]
type Decorator = Callable[[CoroutineTest], Callable[..., None]]


def in_virtual_time(test: CoroutineTest) -> Callable[..., None]:
    """Make a test of a coroutine function: it runs under a fake clock."""

    @functools.wraps(test)
    def main(**fixtures: Any) -> None:
        run(test(**fixtures))

    return main


def given(make: Callable[[Path], AbstractAsyncContextManager[Any]], directory: str = "tmp_path") -> Decorator:
    """Make tests of coroutine functions whose first parameter is what `make` gives for a directory: a fixture's name."""

    def decorate(test: CoroutineTest) -> Callable[..., None]:
        _, *names = inspect.signature(test).parameters

        async def with_it(**fixtures: Any) -> None:
            async with make(fixtures[directory]) as first:
                await test(first, **{name: fixtures[name] for name in names})

        main = functools.update_wrapper(in_virtual_time(with_it), test)
        fixtures = dict.fromkeys([directory, *names])
        main.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in fixtures]
        )
        return main

    return decorate


def in_house(**options: Any) -> Decorator:
    """Make tests whose first parameter is a gateway side of their own; `options` are those of `house`."""
    return given(lambda path: house(path, **options))


def now() -> float:
    """The fake clock as epoch seconds."""
    return NOON + asyncio.get_running_loop().time()


def elapsed() -> float:
    """The seconds since the test began."""
    return round(asyncio.get_running_loop().time(), 3)


async def settle() -> None:
    """Let everything happen that can happen without time passing."""
    await asyncio.sleep(1e-6)


@contextmanager
def _at_work() -> Iterator[None]:
    clock = asyncio.get_running_loop()
    assert isinstance(clock, FakeClock)
    clock.threads_at_work += 1
    try:
        yield
    finally:
        clock.threads_at_work -= 1


# --- The store


class FakeClockInbox(Inbox):
    """The real inbox; the clock stands still while its thread works."""

    async def open(self) -> None:
        with _at_work():
            await super().open()

    async def close(self) -> None:
        with _at_work():
            await super().close()

    async def ask[Result](self, step: Callable[[sqlite3.Connection], Result]) -> Result:
        with _at_work():
            return await super().ask(step)

    async def take_in(self, request: Request, now: float, room: int = 1000) -> tuple[Firing, bool]:
        """Accept one request; return (the firing, whether it is new), or raise why not."""
        [accepted] = await self.accept([request], now, room)
        if isinstance(accepted, Exception):
            raise accepted
        firing = accepted or await self.get(request.id)
        assert firing is not None
        return firing, accepted is not None

    async def put(self, state: str, firing_id: str = "a", **fields: Any) -> Firing:
        """A firing in this state, a prompt unless told otherwise.

        `kept` is `running` with a reply kept, `sending` with a send begun, `sent_in_vain` `retrying` after a refused one.
        """
        if not {"text", "command"} & set(fields):
            fields = {"prompt": "hi", **fields}
        firing, _ = await self.take_in(request(id=firing_id, **fields), NOON)
        if state != "accepted" and firing.text is None:
            firing = await self.move(firing, "start", NOON, attempts=1, started_at=NOON)
        if state == "retrying":
            firing = await self.move(firing, "retry", NOON, error="no luck", not_before=NOON + 30)
        if state in ("kept", "sending", "sent_in_vain") and firing.text is None:
            firing = await self.move(firing, "keep_reply", NOON, reply="the reply", tokens=7)
        if state in ("sending", "sent_in_vain"):
            reply = Message(1, "reply", firing.request.to, firing.request.expires)
            firing = await self.move_message(firing._replace(messages=(reply,)), reply, "begin", NOON)
        if state == "sent_in_vain":
            firing = await self.move_message(
                firing, firing.messages[0], "retry", NOON, error="no way", not_before=NOON + 30
            )
        return firing

    async def sql(self, statement: str, *values: Any) -> list[Any]:
        """Run a statement of the test's on the inbox's own connection."""
        return await self.ask(lambda connection: [tuple(row) for row in connection.execute(statement, values)])

    async def column(self, firing_id: str, name: str) -> Any:
        return (await self.sql(f"SELECT {name} FROM firings WHERE id = ?", firing_id))[0][0]  # noqa: S608

    async def break_disk(self) -> None:
        """From now on SQLite refuses every change."""
        changes = {sqlite3.SQLITE_INSERT, sqlite3.SQLITE_UPDATE, sqlite3.SQLITE_DELETE}
        await self.ask(
            lambda connection: connection.set_authorizer(
                lambda action, *_: sqlite3.SQLITE_DENY if action in changes else sqlite3.SQLITE_OK
            )
        )

    async def mend_disk(self) -> None:
        await self.ask(lambda connection: connection.set_authorizer(None))

    @asynccontextmanager
    async def thread_held(self) -> AsyncIterator[list[str]]:
        """Keep the thread busy within; yield the list of the statements that it carries out afterwards."""
        holds, may_go = threading.Event(), threading.Event()
        statements: list[str] = []

        def hold(connection: sqlite3.Connection) -> None:
            holds.set()
            may_go.wait(_REAL_SECONDS_TO_HANG)
            connection.set_trace_callback(statements.append)

        held = asyncio.create_task(self.ask(hold))
        await asyncio.sleep(0)
        holds.wait(_REAL_SECONDS_TO_HANG)
        try:
            yield statements
        finally:
            may_go.set()
            await held


@asynccontextmanager
async def open_inbox(path: Path) -> AsyncIterator[FakeClockInbox]:
    inbox = FakeClockInbox(str(path / "inbox.db"))
    await inbox.open()
    try:
        yield inbox
    finally:
        await inbox.close()


def request(now: float = NOON, /, **fields: Any) -> Request:
    """A request as the socket gives it; `to`, `id` and a text where none are given."""
    given = {"to": "chat:1", "id": "a", **fields}
    if not {"prompt", "text", "command"} & set(given):
        given["text"] = "hello"
    parsed = parse_request(json.dumps(given).encode(), now=now, new_id=lambda: "made-up")
    assert isinstance(parsed, Request)
    return parsed


# --- The chats

type Behaviour = Exception | Callable[[], Awaitable[None]] | None
"""What a `send()` does: raise, await something, or take the message."""


async def hang() -> None:
    await asyncio.Event().wait()


class FakeChat(Channel):
    """A chat that takes what it is sent; `script` says what its next sends do instead."""

    name = "chat"

    def __init__(self) -> None:
        self.taken: list[ChannelMessage] = []
        self.begun: list[tuple[float, str]] = []  # (seconds since the test began, content) of every send()
        self.script: list[Behaviour] = []
        self.always: Behaviour = None
        self.started = False
        self.on_start: Callable[[asyncio.Event], Awaitable[None]] | None = None
        self.on_stop: Callable[[], Awaitable[None]] | None = None

    async def start(self, stop_event: asyncio.Event) -> None:
        if self.on_start is not None:
            await self.on_start(stop_event)
        self.started = True

    async def stop(self) -> None:
        if self.on_stop is not None:
            await self.on_stop()

    async def send(self, message: ChannelMessage) -> None:
        self.begun.append((elapsed(), message.content))
        behaviour = self.script.pop(0) if self.script else self.always
        if isinstance(behaviour, Exception):
            raise behaviour
        if behaviour is not None:
            await behaviour()
        self.taken.append(message)

    @property
    def texts(self) -> list[str]:
        return [message.content for message in self.taken]


class OtherChat(FakeChat):
    name = "other"


class OffChat(FakeChat):
    """Installed, but not enabled."""

    name = "off"

    @property
    def enabled(self) -> bool:
        return False


class Mute(Channel):
    """A chat that can't send: its class has no `send()`."""

    name = "mute"

    async def start(self, stop_event: asyncio.Event) -> None: ...
    async def stop(self) -> None: ...


class Face(Interface):
    """An interface, as `cli` is: `send()` returns and nobody sees anything."""

    name = "face"

    async def start(self, stop_event: asyncio.Event) -> None: ...
    async def stop(self) -> None: ...
    async def send(self, message: ChannelMessage) -> None: ...


class Background(Lifecycle):
    """Somebody else's lifecycle channel."""

    name = "background"

    async def start(self, stop_event: asyncio.Event) -> None: ...
    async def stop(self) -> None: ...


# --- The model

type Events = AsyncIterator[StreamEvent]
type Play = Callable[[str], Events]
"""What the model does in one turn: from the prompt to a stream of events."""


def says(text: str, *, tokens: int | None = None) -> Play:
    """A turn of one step with this text."""

    async def play(prompt: str) -> Events:
        for event in step(text, tokens=tokens):
            yield event

    return play


def step(text: str, *, tokens: int | None = None, tools: bool = False) -> list[StreamEvent]:
    """The events of one step, in the order in which Bub's own agent gives them."""
    events = [StreamEvent("text", {"delta": text})] if text else []
    events.append(StreamEvent("usage", {"usage": {"total_tokens": tokens} if tokens else None}))
    if tools:
        events.append(StreamEvent("tool_call", {"tool_calls": [{"id": "1"}]}))
        events.append(StreamEvent("tool_result", {"tool_results": ["ok"]}))
        return [*events, StreamEvent("final", {"ok": True, "tool_calls": [{"id": "1"}], "tool_results": ["ok"]})]
    return [*events, StreamEvent("final", {"ok": True, "text": text})]


def plays(*events: StreamEvent) -> Play:
    async def play(prompt: str) -> Events:
        for event in events:
            yield event

    return play


def breaks(error: BaseException, *before: StreamEvent) -> Play:
    """A turn whose stream gives `before` and then raises."""

    async def play(prompt: str) -> Events:
        for event in before:
            yield event
        raise error

    return play


def takes(seconds: float, text: str = "done") -> Play:
    """A turn that takes its time."""

    async def play(prompt: str) -> Events:
        await asyncio.sleep(seconds)
        for event in step(text):
            yield event

    return play


def error_event(message: str) -> StreamEvent:
    return StreamEvent("error", {"kind": ErrorKind.PROVIDER, "message": message})


class FakeModel:
    """A plugin whose turns go as `script` says, then as `always`; keeps what each turn was started with."""

    def __init__(self, framework: BubFramework) -> None:
        self.framework = framework
        self.script: list[Play] = []
        self.always: Play = says("the reply")
        self.prompts: list[str] = []
        self.states: list[dict[str, Any]] = []
        self.system_prompts: list[str] = []
        self.running = 0
        self.most_running = 0
        self.log: list[tuple[float, str, str]] = []  # (seconds, "start" or "end", session)

    @hookimpl
    async def run_model_stream(
        self, prompt: str | list[dict[str, Any]], session_id: str, state: dict[str, Any]
    ) -> AsyncStreamEvents | None:
        text = prompt if isinstance(prompt, str) else str(prompt)
        if text.startswith(","):
            return None  # a command: the builtin agent's
        self.prompts.append(text)
        self.states.append(dict(state))
        self.system_prompts.append(self.framework.get_system_prompt(prompt=prompt, state=state))
        play = self.script.pop(0) if self.script else self.always
        return AsyncStreamEvents(self._noted(play(text), session_id))

    async def _noted(self, events: Events, session_id: str) -> Events:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.log.append((elapsed(), "start", session_id))
        try:
            async for event in events:
                yield event
        finally:
            self.running -= 1
            self.log.append((elapsed(), "end", session_id))

    @property
    def turns(self) -> int:
        return len(self.prompts)

    @property
    def starts(self) -> list[tuple[float, str]]:
        return [(seconds, session) for seconds, what, session in self.log if what == "start"]


class FakeProvider:
    """A model's provider under Bub's own agent loop: its calls give what `script` says, then `always`."""

    def __init__(self) -> None:
        self.script: list[ChatCompletion | Exception] = []
        self.always: ChatCompletion | Exception = completion("the reply", tokens=10)
        self.calls: list[list[dict[str, Any]]] = []  # the messages of each

    async def __call__(self, *, messages: list[dict[str, Any]], **_: Any) -> ChatCompletion:
        self.calls.append(messages)
        answer = self.script.pop(0) if self.script else self.always
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def tool_results(self) -> list[str]:
        """What the tools said to the model, in the messages of the last call."""
        return [str(message["content"]) for message in self.calls[-1] if message["role"] == "tool"]


def completion(text: str = "", tokens: int | None = None, **tools: dict[str, Any]) -> ChatCompletion:
    """What a provider answers: a text, or calls of tools with their arguments."""
    calls = [
        {"id": name, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for name, arguments in tools.items()
    ]
    message = {"role": "assistant", "content": text or None, "tool_calls": calls or None}
    usage = {"prompt_tokens": 0, "completion_tokens": tokens, "total_tokens": tokens} if tokens is not None else None
    return ChatCompletion.model_validate({
        "id": "1", "object": "chat.completion", "created": 0, "model": "m", "usage": usage,
        "choices": [{"index": 0, "finish_reason": "tool_calls" if calls else "stop", "message": message}],
    })  # fmt: skip


@contextmanager
def real_loop(home: House) -> Iterator[FakeProvider]:
    """Let Bub's own agent run the turns, over a provider that is ours."""
    home.framework.plugin_manager.unregister(home.model)
    provider = FakeProvider()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ModelRunner, "completion_response", provider)
        yield provider


class FakeParts:
    """A plugin with the fake chats, and with a tape store that leaves no files."""

    def __init__(self, channels: list[Channel]) -> None:
        self.channels = channels

    @hookimpl
    def provide_channels(self, message_handler: Callable[[Any], Coroutine[Any, Any, None]]) -> list[Channel]:
        return self.channels

    @hookimpl
    def provide_tape_store(self) -> InMemoryTapeStore:
        return InMemoryTapeStore()


@contextmanager
def logged() -> Iterator[list[str]]:
    """What is logged within, warnings and worse."""
    lines: list[str] = []
    sink = logger.add(lambda message: lines.append(message.record["message"]), level="WARNING")
    try:
        yield lines
    finally:
        logger.remove(sink)


# --- All of it


async def run_gate(gate: Mapping[str, Any], reminder: str | None, fire_time: str | None) -> gates.GateOutput:
    """Run a gate as it is run; the clock stands still while it runs."""
    with _at_work():
        return await gates.run(gate, reminder, fire_time)


async def post(url: str, body: str) -> None:
    """Make a ping as it is made; the clock stands still meanwhile."""
    with _at_work():
        await pings.post(url, body)


class House:
    """One gateway side with its parts."""

    def __init__(self, path: Path, inbox: FakeClockInbox, *, max_concurrent: int, max_waiting: int) -> None:
        self.inbox = inbox
        self.framework = framework_in(path)
        self.chat, self.other = FakeChat(), OtherChat()
        self.model = FakeModel(self.framework)
        self.plugin = CronPlugin(self.framework)
        self.framework.plugin_manager.register(self.plugin, name="cron")
        self.framework.plugin_manager.register(FakeParts([self.chat, self.other, OffChat(), Mute(), Face()]))
        self.framework.plugin_manager.register(self.model, name="model")
        self.manager = ChannelManager(self.framework, enabled_channels=["all"], stream_output=False)
        self.framework.bind_channel_router(self.manager)
        self.turns = self.plugin._turns
        self.users = self.plugin._users
        self.delivery = Delivery(self.framework, self.manager)
        self.runner = Runner(
            inbox,
            self.turns,
            self.delivery,
            self.users,
            max_concurrent=max_concurrent,
            max_waiting=max_waiting,
            run_gate=run_gate,
            post=post,
            now=now,
        )

    async def take(self, **fields: Any) -> str:
        """Accept a request through the runner, as the listener does; return its id."""
        asked = request(now(), **fields)
        [accepted] = await self.runner.accept([asked])
        if isinstance(accepted, Exception):
            raise accepted
        return asked.id

    async def outcome(self, firing_id: str) -> Firing:
        """Wait for a firing's final outcome."""
        final = self.runner.final(firing_id)
        return await self.get(firing_id) if final is None else await asyncio.shield(final)

    async def run(self, **fields: Any) -> Firing:
        """Take a request and wait for its final outcome."""
        return await self.outcome(await self.take(**fields))

    async def get(self, firing_id: str = "a") -> Firing:
        firing = await self.inbox.get(firing_id)
        assert firing is not None
        return firing

    async def user_turn(self, session: str, seconds: float) -> None:
        """Run a user's turn of this length in a session."""
        self.model.script.insert(0, takes(seconds, "to the user"))
        channel, _, chat_id = session.partition(":")
        await self.framework.process_inbound(ChannelMessage(session, channel, "hi", chat_id=chat_id))


def framework_in(path: Path) -> BubFramework:
    framework = BubFramework(config_file=path / "config.yml")
    framework.workspace = path
    framework.load_builtin_hooks()
    return framework


@asynccontextmanager
async def house(
    path: Path, *, max_concurrent: int = 4, begin: bool = True, recover: bool = False, max_waiting: int = 1000
) -> AsyncIterator[House]:
    """A gateway side over the inbox in `path`, begun unless told otherwise; stopped at the end."""
    with bub_home(path):
        async with open_inbox(path) as inbox:
            home = House(path, inbox, max_concurrent=max_concurrent, max_waiting=max_waiting)
            if recover:
                for firing in await recovered(inbox, now()):
                    home.runner.take(firing)
            if begin:
                home.runner.begin()
            try:
                yield home
            finally:
                await home.runner.stop()
                home.delivery.close()


@contextmanager
def bub_home(path: Path, environ: Mapping[str, str] | None = None) -> Iterator[pytest.MonkeyPatch]:
    """Let Bub and this project see nothing of the user's: no home, no `.env`, no settings."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("BUB_CRON_FILE", "BUB_CRON_STATE", "BUB_CRON_SOCKET", "BUB_TELEGRAM_TOKEN"):
            patch.delenv(name, raising=False)
        patch.setenv("BUB_HOME", str(path))
        for name, value in (environ or {}).items():
            patch.setenv(name, value)
        patch.chdir(path)
        yield patch
