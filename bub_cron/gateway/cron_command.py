"""`bub cron ...`: the same as `bub-cron ...`.

Invariants: the words behind `cron` are passed on as they are, and `bub-cron` takes this process's place, so its standard
streams, its signals and its exit status are the caller's own.
"""

from __future__ import annotations

import os
import sys

import typer
from typer.core import TyperCommand

from bub_cron.gateway.environment import gateway_environ


class _Verbatim(TyperCommand):
    """A command that leaves all of its words, options and `--` among them, to somebody else."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        ctx.args = list(args)
        return []


def add_cron_command(app: typer.Typer) -> None:
    """Add the command `cron` to Bub's."""
    app.command("cron", cls=_Verbatim, add_help_option=False, help="Reminders on a schedule, as bub-cron does them.")(
        _cron
    )


def _cron(context: typer.Context) -> None:
    # -P: what lies in the working directory is not imported.
    os.execve(  # noqa: S606 - no shell, on purpose
        sys.executable, [sys.executable, "-P", "-m", "bub_cron", *context.args], gateway_environ()
    )
