"""A stand-in for a model: a small server on loopback that speaks as much of the OpenAI API as Bub's agent loop uses.

It lets the real agent loop run without an API key. What it answers is up to the function it is given.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

type Messages = list[dict[str, Any]]
type Answer = Callable[[Messages], str | dict[str, Any]]


class StandInModel:
    """Serves `POST /v1/chat/completions` at `url` from `start()` to `stop()`.

    `answer` gets the conversation and returns the reply's text, or a dict that stands as one streamed delta (for tool
    calls); what it raises ends the connection in the middle. `conversations` keeps what was asked, in order.
    """

    def __init__(self, answer: Answer) -> None:
        self.conversations: list[Messages] = []
        self._answer = answer
        model = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Say nothing on standard error."""

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                model.conversations.append(body["messages"])
                given = model._answer(body["messages"])
                delta = {"role": "assistant", "content": given} if isinstance(given, str) else given
                try:
                    self._stream(delta)
                except ConnectionError:
                    return  # the gateway was stopped, or ended the turn

            def _stream(self, delta: dict[str, Any]) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                self._chunk(delta, None)
                self._chunk({}, "tool_calls" if "tool_calls" in delta else "stop")
                self.wfile.write(b"data: [DONE]\n\n")

            def _chunk(self, delta: dict[str, Any], finish: str | None) -> None:
                choice = {"index": 0, "delta": delta, "finish_reason": finish}
                chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
                self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

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
