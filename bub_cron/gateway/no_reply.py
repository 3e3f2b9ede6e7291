"""temporary: replaced when the channels branch is merged."""

from bub_cron.wire import NO_REPLY


def without_marker(text: str) -> str:
    while NO_REPLY in text:
        text = text.replace(NO_REPLY, "").strip()
    return text.strip() and text


def is_no_reply(text: str) -> bool:
    return not without_marker(text)
