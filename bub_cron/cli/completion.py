"""The command that prints what makes a shell complete: completion."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from bub_cron.cli.base import commands


@commands.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the shell's completion script: commands, options and reminders' names.

    bash: add `eval "$(bub-cron completion bash)"` to ~/.bashrc; zsh the same to ~/.zshrc; fish: `bub-cron completion
    fish > ~/.config/fish/completions/bub-cron.fish`.
    """
    made = get_completion_class(shell)
    if made is None:
        raise click.UsageError(f"this click knows nothing of {shell}")
    source = made(context.find_root().command, {}, "bub-cron", "_BUB_CRON_COMPLETE").source()
    # click's cuts a description at its first comma.
    click.echo(source.replace('string split "," $completion', 'string split --max 1 "," $completion'))
