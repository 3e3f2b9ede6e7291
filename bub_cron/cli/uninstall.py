"""The command that undoes what install did: uninstall.

Invariants: what is to be done is planned first, and planning only reads; what someone changed by hand stays unless
`--force` says otherwise, and what it does meanwhile is said.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys

import click

from bub_cron.cli.base import commands, with_paths
from bub_cron.cli.install import name_option, named, where_option
from bub_cron.cli.steps import Plan, Remove, Run, found_at
from bub_cron.errors import NotAllowedError, UnusablePathError
from bub_cron.paths import Paths
from bub_cron.programs import crontab, first_line
from bub_cron.trigger import crontabs, units
from bub_cron.trigger.machine import CRONTAB, systemctl, timers, unit_directory
from bub_cron.trigger.units import SYSTEM, USER


@commands.command()
@where_option
@name_option
@click.option("--dry-run", is_flag=True, help="Print what would be removed and run, and change nothing.")
@click.option("--force", is_flag=True, help="Also remove what was changed by hand.")
@with_paths
def uninstall(paths: Paths, where: str | None, name: str, dry_run: bool, force: bool) -> None:
    """Undo what `install` did: all of it that is there, or what is chosen. Reminders and stores stay.

    Exits with 0 when nothing of it is left, 73 if something changed by hand was kept, 74 if a step failed, 77 if another
    user has to do it.
    """
    plan, chosen = Plan(), [f"--{where}"] if where else []
    for manager in (USER, SYSTEM):
        if where in (None, manager):
            _plan_unit_removal(plan, manager, paths, name, force=force, dry_run=dry_run, chosen=where == manager)
    if where == CRONTAB or (where is None and shutil.which("crontab")):
        _plan_entry_removal(plan, paths, name, force=force)
    if not plan.steps and not plan.kept and not plan.notes:
        click.echo("nothing of it is installed", err=True)
    plan.carry_out(dry_run=dry_run, again=f"run `{shlex.join(['bub-cron', 'uninstall', *chosen, *named(name)])}`")


def _plan_unit_removal(
    plan: Plan, manager: str, paths: Paths, name: str, *, force: bool, dry_run: bool, chosen: bool
) -> None:
    """Plan the removal of a manager's units; a timer and its service go together or stay together."""
    directory, names = unit_directory(manager), units.names(name)
    found = {unit: text for unit in names if (text := found_at(os.path.join(directory, unit))) is not None}
    if found and manager == SYSTEM and os.geteuid() != 0 and not dry_run:
        if chosen:
            raise NotAllowedError(f"the units in {directory} are root's: use sudo")
        plan.notes.append(f"the units in {directory} are root's, and stay: `sudo bub-cron uninstall --system`")
        return
    instances = _enabled_instances(directory, names)
    gone = _removable(plan, manager, paths, name, found, force=force)
    if instances and names.fire_timer in gone and not force:
        plan.kept.append(f"{', '.join(names[2:])} stay for {', '.join(instances)}, which you enabled")
        gone = [unit for unit in gone if unit not in names[2:]]
    stopped = [unit for unit in gone if unit == names.timer] + (instances if names.fire_timer in gone else [])
    if stopped:
        plan.steps.append(Run(*systemctl(manager, "disable", "--now", *stopped)))
    # Else it would stay in the list of what failed, though it is gone.
    if names.service in gone and first_line(*systemctl(manager, "is-failed", names.service)) == "failed":
        plan.steps.append(Run(*systemctl(manager, "reset-failed", names.service)))
    plan.steps += [Remove(os.path.join(directory, unit)) for unit in gone]
    if gone:
        plan.steps.append(Run(*systemctl(manager, "daemon-reload")))
    for timer in timers(manager)[1:] if not name else ():
        if units.is_as_written(found_at(os.path.join(directory, timer)) or ""):
            other = timer.removeprefix("bub-cron-").removesuffix(".timer")
            plan.notes.append(f"{timer} stays: `bub-cron uninstall --name {other}` removes it")


def _removable(plan: Plan, manager: str, paths: Paths, name: str, found: dict[str, str], *, force: bool) -> list[str]:
    """Return which of the units found go; the plan is told which were changed by hand, and what they still do."""
    directory, names = unit_directory(manager), units.names(name)
    gone: list[str] = []
    for pair in (names[:2], names[2:]):
        there = [unit for unit in pair if unit in found]
        changed = [unit for unit in there if not units.is_as_written(found[unit]) and not force]
        for unit in changed:
            original = _original(manager, unit, found[unit], paths, name)
            plan.keep(os.path.join(directory, unit), found[unit], original, "as installed")
        if changed and names.timer in there:
            stop = " ".join(systemctl(manager, "disable", "--now", names.timer))
            plan.notes.append(f"{names.timer} stays, and still runs the tick: `{stop}` stops it")
        gone += [] if changed else there
    return gone


def _original(manager: str, unit: str, text: str, paths: Paths, name: str) -> str:
    """Return what `install` wrote, as far as that can be made again from the paths in force; else ""."""
    try:
        ping = units.ping_of(text)
        tells = units.TickPing(ping, shutil.which("curl") or sys.executable) if ping else None
        account = re.search(r"^User=(.*)$", text, re.MULTILINE)
        baked = units.baked(sys.executable, paths, account[1] if account else "", tells)
    except UnusablePathError:
        return ""
    wanted = units.signed(units.unit_files(manager, baked, name)[unit])
    return wanted if units.was_written_as(text, wanted) else ""


def _enabled_instances(directory: str, names: units.Names) -> list[str]:
    base = names.fire_timer.removesuffix(".timer")
    try:
        there = os.listdir(os.path.join(directory, "timers.target.wants"))
    except OSError:  # no timer is enabled
        return []
    return sorted(one for one in there if one.startswith(base) and one.endswith(".timer"))


def _plan_entry_removal(plan: Plan, paths: Paths, name: str, *, force: bool) -> None:
    before = crontab()
    there = [entry for entry in crontabs.entries(before) if entry.name == name]
    gone = [entry for entry in there if force or units.is_as_written(entry.text)]
    for entry in there:
        if entry not in gone:
            ping = units.ping_of(entry.text)
            tells = units.TickPing(ping, shutil.which("curl") or sys.executable) if ping else None
            wanted = crontabs.crontab_entry(sys.executable, paths, tells, name)
            original = wanted if units.was_written_as(entry.text, wanted) else ""
            plan.keep("the crontab's entry", entry.text, original, "as installed")
            plan.notes.append(
                "the crontab's entry stays as it is, and runs the tick unless it is a comment: `crontab -e`"
            )
    after = crontabs.without(before, gone)
    if gone:
        # What `install` made of no crontab is no crontab again.
        plan.steps.append(Run("crontab", "-", text=after) if after else Run("crontab", "-r"))
