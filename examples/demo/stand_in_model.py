"""A stand-in for a model: a small server on loopback that speaks as much of the OpenAI API as Bub's agent loop uses.

It lets the real agent loop run without an API key. What it answers is up to the function it is given.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_numbers = itertools.count(1)

type Messages = list[dict[str, Any]]
type Answer = Callable[[Messages], str | dict[str, Any]]


def tool_calls(*calls: tuple[str, dict[str, Any]], text: str | None = None) -> dict[str, Any]:
    """Return an answer that calls tools: a name and its arguments each, with `text` said before."""
    called = [
        {
            "index": index,
            "id": f"call-{next(_numbers)}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for index, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": text, "tool_calls": called}


class StandInModel:
    """Serves `POST /v1/chat/completions` at `url` from `start()` to `stop()`, streamed or whole as the request says.

    `answer` gets the conversation and returns the reply's text, or a message as a dict (`tool_calls` makes one); what it
    raises ends the connection in the middle. `requests` keeps what was asked, in order, whole.
    """

    def __init__(self, answer: Answer) -> None:
        self.requests: list[dict[str, Any]] = []
        self._answer = answer
        model = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Say nothing on standard error."""

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                model.requests.append(request)
                given = model._answer(request["messages"])
                message = {"role": "assistant", "content": given} if isinstance(given, str) else given
                finish = "tool_calls" if "tool_calls" in message else "stop"
                try:
                    if request.get("stream"):
                        self._stream(message, finish)
                    else:
                        self._whole(message, finish)
                except ConnectionError:
                    return  # the gateway was stopped, or ended the turn

            def _stream(self, message: dict[str, Any], finish: str) -> None:
                self._begin("text/event-stream")
                for delta in _deltas(message):
                    self._chunk(delta, None)
                self._chunk({}, finish)
                self.wfile.write(b"data: [DONE]\n\n")

            def _chunk(self, delta: dict[str, Any], finish: str | None) -> None:
                choice = {"index": 0, "delta": delta, "finish_reason": finish}
                chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

            def _whole(self, message: dict[str, Any], finish: str) -> None:
                self._begin("application/json")
                choice = {"index": 0, "message": message, "finish_reason": finish}
                whole = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
                self.wfile.write(json.dumps(whole).encode())

            def _begin(self, content_type: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.end_headers()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def conversations(self) -> list[Messages]:
        """The messages of each request, in order."""
        return [request["messages"] for request in self.requests]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def environment(self) -> dict[str, str]:
        """Return the settings that make Bub use it."""
        return {"BUB_MODEL": "openai:stand-in", "BUB_API_KEY": "none", "BUB_API_BASE": self.url}

    def start(self) -> StandInModel:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _deltas(message: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a message in the pieces in which a provider streams it: of a tool call first the name, then the arguments."""
    calls = message.get("tool_calls", [])
    deltas = [{**message, "tool_calls": []} if calls else message]
    for call in calls:
        arguments = call["function"]["arguments"]
        deltas.append({"tool_calls": [{**call, "function": {**call["function"], "arguments": ""}}]})
        half = len(arguments) // 2
        for piece in (arguments[:half], arguments[half:]):
            deltas.append({"tool_calls": [{"index": call["index"], "function": {"arguments": piece}}]})
    return deltas
