"""What install and uninstall do to a machine, as a plan of steps that is either shown or carried out.

Invariants:
- A file is written whole beside its place and renamed into it; a symbolic link there is never written through.
- A dry run shows the very steps that would be done, each whole.
- When a step fails, the text says which, what was done before it and what was not.
"""

from __future__ import annotations

import difflib
import os
import shlex
import tempfile
from collections.abc import Callable

import click

from bub_cron import terminal
from bub_cron.errors import HalfDoneError, HandChangedError, NotAllowedError
from bub_cron.programs import decoded, encoded, output


class Write:
    """Write a file, whole or not at all."""

    def __init__(self, path: str, text: str) -> None:
        self._path = path
        self._text = text

    def __str__(self) -> str:
        return f"write {terminal.clean(self._path)}"

    def shown(self) -> str:
        return f"# {terminal.clean(self._path)}\n{self._text}"

    def do(self) -> None:
        directory = os.path.dirname(self._path)
        os.makedirs(directory, exist_ok=True)
        # Of an unguessable name, made anew: nobody can have put a link there. The rename replaces a link in the way.
        descriptor, beside = tempfile.mkstemp(prefix=".bub-cron-", dir=directory)
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(self._text)
                file.flush()
                os.fsync(file.fileno())
            os.rename(beside, self._path)
        except BaseException:
            os.unlink(beside)
            raise


class Remove:
    """Remove a file; a symbolic link goes itself, not what it leads to."""

    def __init__(self, path: str) -> None:
        self._path = path

    def __str__(self) -> str:
        return f"remove {terminal.clean(self._path)}"

    def shown(self) -> str:
        return f"# {self}\n"

    def do(self) -> None:
        os.unlink(self._path)


class Run:
    """Run a command; what it says counts only if it fails."""

    def __init__(self, *command: str, text: str = "") -> None:
        self._command = command
        self._text = text

    def __str__(self) -> str:
        return f"run {terminal.clean(shlex.join(self._command))}"

    def shown(self) -> str:
        text = f"$ {terminal.clean(shlex.join(self._command))}\n"
        return f"{text}{self._text}" if self._text else text

    def do(self) -> None:
        done = output(*self._command, text=self._text)
        if done.returncode != 0:
            said = " ".join(decoded(done.stderr or done.stdout).split())
            raise OSError(f"exit status {done.returncode}: {said or 'it said nothing'}")


class FirstTick(Run):
    """Run a tick at once: reminders count from the first one, and a unit that can't work shows now rather than later.

    `reason` tells what the tick itself said, where its starter only says that it failed.
    """

    def __init__(self, *command: str, reason: Callable[[], str] = str) -> None:
        super().__init__(*command)
        self._reason = reason

    def do(self) -> None:
        try:
            super().do()
        except OSError as error:
            raise OSError(self._reason() or str(error)) from error


type Step = Write | Remove | Run


def found_at(path: str) -> str | None:
    """Return a file's text; None if there is none. A link that leads nowhere is an empty one."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return "" if os.path.islink(path) else None
    except OSError as error:
        raise NotAllowedError(f"{path} can't be read: {error.strerror}") from error


class Plan:
    """What is to be done, and what was found that stays as it is."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.kept: list[str] = []  # what is someone's own doing: changed by hand, each with its diff, or still in use
        self.notes: list[str] = []

    def keep(self, what: str, found: str, other: str, label: str) -> None:
        """Leave what was changed by hand, and show how it differs from another text; from none if that is ""."""
        lines = difflib.unified_diff(
            other.splitlines(), found.splitlines(), f"{what} ({label})", f"{what} (as it is)", lineterm=""
        )
        diff = lines if other else ()
        self.kept.append("\n".join([f"{what} was changed by hand, and stays as it is{':' if other else ''}", *diff]))

    def carry_out(self, *, dry_run: bool, again: str) -> None:
        """Do, or show, every step; then tell what was kept, which ends in `HandChangedError`."""
        for text in self.kept:
            for line in terminal.clean_lines(text):
                click.echo(line, err=True)
        for at, step in enumerate(self.steps):
            if dry_run:
                click.echo(encoded(step.shown()), nl=False)
                continue
            try:
                step.do()
            except OSError as error:
                if isinstance(step, FirstTick):
                    self.notes.insert(0, f"it is installed, but the first tick failed: {error}")
                    continue
                raise HalfDoneError(self._half_done(at, error, again)) from error
            click.echo(_past(step))
        for note in self.notes:
            click.echo(f"note: {terminal.clean(note)}", err=True)
        if self.kept:
            raise HandChangedError("your changes were kept; use --force to overwrite them")

    def _half_done(self, at: int, error: Exception, again: str) -> str:
        before = ", ".join(map(_past, self.steps[:at])) or "nothing"
        after = ", ".join(map(str, self.steps[at + 1 :])) or "nothing"
        return (
            f"could not {self.steps[at]}: {error}\ndone before that: {before}\nnot done: {after}\n"
            f"fix that, then {again} again"
        )


def _past(step: Step) -> str:
    verb, _, rest = str(step).partition(" ")
    return f"{ {'write': 'wrote', 'remove': 'removed', 'run': 'ran'}[verb] } {rest}".strip()
