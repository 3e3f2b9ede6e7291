"""trigger/client.py: lines out, answers in, an end to every wait, and errors that say what to look at."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fake_gateway import FakeGateway, silent

from bub_cron.errors import EX_UNAVAILABLE, GatewayAbsentError
from bub_cron.trigger import client
from bub_cron.trigger.client import Connection
from bub_cron.wire import encode


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "cron.sock")


def request(number: int = 0, text: str = "hello") -> bytes:
    return encode({"id": f"r{number}", "to": "telegram:1", "text": text})


def exchanged(path: str, lines: list[bytes]) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = []
    with Connection(path) as connection:
        connection.exchange(lines, answers.append)
    return answers


@contextmanager
def absent(message: str) -> Iterator[None]:
    with pytest.raises(GatewayAbsentError) as caught:
        yield
    assert message in str(caught.value)
    assert caught.value.exit_status == EX_UNAVAILABLE


def test_each_line_gets_its_answer(path: str) -> None:
    with FakeGateway(path) as gateway:
        answers = exchanged(path, [request(number) for number in range(3)])
    assert answers == [{"id": f"r{number}", "status": "accepted"} for number in range(3)]
    assert gateway.submitted == ["r0", "r1", "r2"]


def test_no_lines_need_no_answers(path: str) -> None:
    with FakeGateway(path, silent):
        assert exchanged(path, []) == []


def test_thousands_of_pipelined_lines_do_not_lock_the_two_sides_up(path: str) -> None:
    # Answers that are far longer than any buffer: who only wrote first would wait for ever.
    def wordy(asked: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"id": asked["id"], "status": "accepted", "error": "x" * 2000}]

    with FakeGateway(path, wordy):
        answers = exchanged(path, [request(number, "y" * 2000) for number in range(3000)])
    assert [answer["id"] for answer in answers] == [f"r{number}" for number in range(3000)]


def test_an_answer_may_come_in_pieces_and_several_at_once(path: str) -> None:
    def script(asked: dict[str, Any]) -> list[bytes]:
        if asked["id"] == "r0":
            return [b'{"id": "r0", "sta']
        return [b'tus": "Gr\xc3', b'\xbc\xc3\x9fe"}\n{"id": "r1", "status": "accepted"}\n']

    with FakeGateway(path, script):
        assert [answer["status"] for answer in exchanged(path, [request(0), request(1)])] == ["Grüße", "accepted"]


# --- Nobody there


def test_nothing_at_the_path(path: str) -> None:
    with absent(f"no gateway listens at {path}: start `bub gateway`, or set BUB_CRON_SOCKET to where it listens"):
        Connection(path)


def test_a_socket_file_that_nobody_listens_at(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with absent(f"nobody listens at {path} any more: start `bub gateway`"):
        Connection(path)


@pytest.mark.parametrize("kind", ["file", "directory", "long"])
def test_something_else_at_the_path(path: str, kind: str) -> None:
    if kind == "file":
        Path(path).write_text("mine")
    elif kind == "directory":
        Path(path).mkdir()
    else:
        path += "x" * 200
    with absent(path):
        Connection(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to become another user")
def test_a_socket_of_another_user(path: str) -> None:
    with FakeGateway(path):
        os.seteuid(65534)
        try:
            with absent("may not be used by this user: run as the gateway's user, or see BUB_CRON_ALLOW_UIDS"):
                Connection(path)
        finally:
            os.seteuid(0)


# --- Not to the end


def test_a_gateway_that_leaves_is_absent_and_what_it_answered_stands(path: str) -> None:
    answers: list[dict[str, Any]] = []
    with FakeGateway(path, leave_after=3), Connection(path) as connection, absent("closed the connection before"):
        connection.exchange([request(number) for number in range(5)], answers.append)
    assert [answer["id"] for answer in answers] == ["r0", "r1"]


def test_a_gateway_that_says_nothing_is_absent(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.05)
    with FakeGateway(path, silent), absent("did not answer within 0.05 s"):
        exchanged(path, [request()])


@pytest.mark.parametrize(
    "garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\n", b"[]\n", b"null\n", b"\xff\xfe\n", b'{"id": "r0"\n']
)
def test_what_is_no_gateway_is_told_so(path: str, garbage: bytes) -> None:
    with FakeGateway(path, lambda _: [garbage]), absent(f"what listens at {path} is no gateway of bub-cron"):
        exchanged(path, [request()])


def test_an_answer_that_is_nested_too_deeply_is_no_gateways(path: str) -> None:
    with FakeGateway(path, lambda _: [b"[" * 100_000 + b"\n"]), absent("is no gateway of bub-cron"):
        exchanged(path, [request()])


def test_a_refusal_that_came_before_the_first_line_is_heard(path: str) -> None:
    refusal = b'{"status": "rejected", "error": "user 7 may not talk to this gateway"}\n'
    answers: list[dict[str, Any]] = []
    with FakeGateway(path, greeting=refusal, refuses=True) as gateway, Connection(path) as connection:
        assert gateway.closed.wait(5)
        connection.exchange([request()], answers.append)
    assert [answer["error"] for answer in answers] == ["user 7 may not talk to this gateway"]


def test_a_refusal_that_came_before_the_line_is_heard_one_at_a_time_too(path: str) -> None:
    refusal = b'{"status": "rejected", "error": "user 7 may not talk to this gateway"}\n'
    with FakeGateway(path, greeting=refusal, refuses=True) as gateway, Connection(path) as connection:
        assert gateway.closed.wait(5)
        connection.write(request())
        assert [answer["error"] for answer in connection.read_some()] == ["user 7 may not talk to this gateway"]


# --- One at a time


def test_what_is_written_can_be_read_as_it_comes(path: str) -> None:
    with FakeGateway(path), Connection(path) as connection:
        connection.write(request())
        assert connection.read(5) == [{"id": "r0", "status": "accepted"}]
        assert connection.read(0) == []


def test_reading_ends_when_its_time_is_over(path: str) -> None:
    with FakeGateway(path, silent), Connection(path) as connection:
        connection.write(request())
        assert connection.read(0.01) == []


def test_reading_and_writing_tell_when_the_gateway_has_left(path: str) -> None:
    with FakeGateway(path, refuses=True) as gateway, Connection(path) as connection:
        assert gateway.closed.wait(5)
        with absent("closed the connection"):
            connection.read(5)
        connection.write(request())  # nobody takes it; reading tells
        with absent("closed the connection"):
            connection.read(5)
