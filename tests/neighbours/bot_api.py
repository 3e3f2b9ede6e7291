"""Telegram's Bot API on loopback, behind Bub's own Telegram channel.

The channel has no setting for another address, but one for a proxy: `BotApi` is that proxy and plays api.telegram.org.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from neighbours.certificates import Authority
from neighbours.platform import Platform, Request, Step, answers

HOST = "api.telegram.org"
MOST_UNITS = 4096
_POLL_SECONDS = 5.0


class BotApi(Platform):
    """A chat platform that takes messages of up to 4,096 UTF-16 units, as the real one does."""

    def __init__(self, path: Path) -> None:
        authority = Authority(path)
        super().__init__(self._answer, _is_message, tls=authority.context(HOST))
        self.environment = {"BUB_TELEGRAM_TOKEN": "1:test", "SSL_CERT_FILE": str(authority.file)}

    def start(self) -> BotApi:
        super().start()
        self.environment["BUB_TELEGRAM_PROXY"] = self.url
        return self

    def messages(self) -> list[tuple[str, str]]:
        """Return what arrived: (chat id, text)."""
        return [(request.fields()["chat_id"], request.fields()["text"]) for request in self.arrived]

    def _answer(self, request: Request) -> tuple[int, Any]:
        method = request.path.rpartition("/")[2]
        fields = request.fields()
        match method:
            case "getMe":
                return 200, _ok({"id": 1, "is_bot": True, "first_name": "bub", "username": "bub_bot"})
            case "getUpdates":
                self._stopped.wait(min(_POLL_SECONDS, float(fields.get("timeout", "0"))))
                return 200, _ok([])
            case "sendMessage":
                if len(fields["text"].encode("utf-16-le")) // 2 > MOST_UNITS:
                    self.arrived.remove(request)
                    return error(400, "Bad Request: message is too long")
                chat = {"id": int(fields["chat_id"]), "type": "private", "first_name": "x"}
                return 200, _ok({"message_id": len(self.arrived), "date": 1, "chat": chat, "text": fields["text"]})
        return 200, _ok(result=True)


def refuses(status: int, description: str, **parameters: object) -> Step:
    """A step in which Telegram says that it doesn't take the message."""
    return answers(*error(status, description, **parameters))


def error(status: int, description: str, **parameters: object) -> tuple[int, dict[str, Any]]:
    content: dict[str, Any] = {"ok": False, "error_code": status, "description": description}
    return status, {**content, "parameters": parameters} if parameters else content


TOO_MANY = refuses(429, "Too Many Requests: retry after 300", retry_after=300)
NOT_FOUND = refuses(400, "Bad Request: chat not found")
BLOCKED = refuses(403, "Forbidden: bot was blocked by the user")
UNAUTHORIZED = refuses(401, "Unauthorized")
MIGRATED = refuses(400, "Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id=-100500)
INTERNAL = refuses(500, "Internal Server Error")


def _ok(result: Any) -> dict[str, Any]:
    return {"ok": True, "result": result}


def _is_message(request: Request) -> bool:
    return request.path.endswith("/sendMessage")
