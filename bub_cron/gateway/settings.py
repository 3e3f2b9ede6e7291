"""The gateway's settings: Bub's configuration, section `cron`, prefix `BUB_CRON_`. Paths are not among them (paths.py)."""

from __future__ import annotations

from typing import Literal

from bub.configure import Settings, config, ensure_config
from pydantic import Field, field_validator
from pydantic_settings import SettingsConfigDict

PROMPT, TEXT, OFF = "prompt", "text", "off"  # the values of `chat`


@config(name="cron")
class CronSettings(Settings):
    """What an operator may choose; each is explained where it stands."""

    model_config = SettingsConfigDict(env_prefix="BUB_CRON_", extra="ignore")

    max_concurrent: int = Field(default=4, ge=1, le=1000, description="Turns of firings that may run at once.")
    max_waiting: int = Field(
        default=20_000,
        ge=1,
        description="Open firings that the inbox holds; beyond that a request is answered `busy`.",
    )
    keep_days: int = Field(
        default=30, ge=1, description="Days that a firing's record is kept after its final outcome, by both sides."
    )
    keep_mib: int = Field(
        default=256, ge=1, description="Size of either store; beyond it, the oldest final firings are dropped."
    )
    allow_commands: bool = Field(
        default=False,
        description="Whether `command` firings are taken. They run Bub commands or shell commands in the gateway.",
    )
    allow_gates: bool = Field(
        default=False,
        description="Whether firings with a `gate` are taken. Gates are commands that run as the gateway's user.",
    )
    chat: Literal["prompt", "text", "off"] = Field(
        default="prompt",
        description="What the agent may make in chat: any reminder, only a `text`, or none (`off`: it has no tools for it).",
    )
    allow_uids: str = Field(
        default="",
        description="User ids, comma-separated, that may talk to the socket besides the gateway's own and root.",
    )

    @field_validator("chat", mode="before")
    @classmethod
    def _off(cls, value: object) -> object:
        return OFF if value is False else value  # what YAML makes of `chat: off` in config.yml

    @field_validator("allow_uids", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        # config.yml may say `allow_uids: 1000`, or a list of numbers.
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        return ",".join(map(str, value)) if isinstance(value, list) else value

    @field_validator("allow_uids")
    @classmethod
    def _numbers(cls, value: str) -> str:
        for part in filter(None, (part.strip() for part in value.split(","))):
            if not part.isdecimal():
                raise ValueError(f"{part!r} is not a user id; write numbers, separated by commas")
        return value

    @property
    def uids(self) -> frozenset[int]:
        """`allow_uids` as numbers."""
        return frozenset(int(part) for part in self.allow_uids.split(",") if part.strip())


def chat_setting() -> str:
    """Return `BUB_CRON_CHAT`; "off" where the settings can't be read, which the channel tells when it starts."""
    try:
        return ensure_config(CronSettings).chat
    except ValueError:
        return "off"
