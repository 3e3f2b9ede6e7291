"""The command chats: which chats a reminder can be for.

Invariants: the gateway alone knows, so without one there is no answer.
"""

from __future__ import annotations

from datetime import datetime

import click

from bub_cron import terminal
from bub_cron.cli.base import commands, json_option, with_paths
from bub_cron.cli.look import screen_clock
from bub_cron.errors import GatewayAbsentError
from bub_cron.health.status import PATIENCE
from bub_cron.paths import Paths
from bub_cron.trigger.client import ask
from bub_cron.wire import CHATS, parse_instant


@commands.command()
@with_paths
@json_option
def chats(paths: Paths, as_json: bool) -> None:
    """Show the chats that have written to the gateway, for `to:`.

    To find out what to write as `to:`, write a message to your bot, then run this. The chat that wrote last comes first.
    Exits with 69 where no gateway answers.
    """
    answer = ask(paths.socket, {"chats": True}, PATIENCE)
    if answer.get("status") != CHATS:
        raise GatewayAbsentError(f"the gateway does not tell its chats: {answer.get('error') or answer}")
    found = answer["chats"]
    if as_json:
        for chat in found:
            click.echo(terminal.json_line({"to": chat["to"], "seen": chat["seen"]}))
    elif found:
        clock, zone = screen_clock([])
        rows = [
            (chat["to"], f"{datetime.fromtimestamp(parse_instant(chat['seen']), clock):%a %Y-%m-%d %H:%M}")
            for chat in found
        ]
        terminal.table(("to", f"last message ({zone})"), rows, elastic=("to",))
    else:
        click.echo("no chat has written to this gateway yet: send your bot a message, then try again", err=True)
    if left_out := answer.get("left_out"):
        click.echo(f"{left_out:,} more, which wrote longer ago, are left out", err=True)
