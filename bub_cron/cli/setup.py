"""The commands that set the machine up to run the tick, and undo that: install, uninstall.

Invariants:
- What is to be done is planned first, and planning only reads; nothing is done that was not in the plan.
- What someone changed by hand, and every other line of a crontab, stays unless `--force` says otherwise.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import sys
from collections.abc import Callable

import click
from click.shell_completion import get_completion_class

from bub_cron import terminal
from bub_cron.checkers import NONE
from bub_cron.cli.base import commands, with_paths
from bub_cron.cli.steps import FirstTick, Plan, Remove, Run, Step, Write
from bub_cron.errors import (
    GatewayAbsentError,
    NoSuchManagerError,
    NotAllowedError,
    UnusablePathError,
)
from bub_cron.paths import Paths, find_paths
from bub_cron.programs import crontab, decoded, first_line, output
from bub_cron.trigger import units
from bub_cron.trigger.client import Connection
from bub_cron.trigger.units import SYSTEM, USER

CRONTAB = "crontab"
SYSTEM_UNITS = "/etc/systemd/system"
BOOTED = "/run/systemd/system"  # there is a directory where systemd is process 1: sd_booted(3)
_GATEWAY = "bub-gateway.service"  # what `bub gateway --install` writes
_RUNNING = {"initializing", "starting", "running", "degraded", "maintenance", "stopping"}


# --- install


def _where[R](command: Callable[..., R]) -> Callable[..., R]:
    for name, says in (
        (CRONTAB, "A line in the crontab of this user."),
        (SYSTEM, "Units of the system manager, in /etc/systemd/system; needs root."),
        (USER, "Units of this user's own systemd, in ~/.config/systemd/user."),
    ):
        command = click.option(f"--{name}", "where", flag_value=name, help=says)(command)
    return command


@commands.command()
@_where
@click.option("--as-user", metavar="NAME", help="With --system: who runs it, the user of the gateway.")
@click.option(
    "--ping", metavar="URL", help="Tell this address how each tick ended, by a POST to URL/EXIT_STATUS; none: no more."
)
@click.option("--dry-run", is_flag=True, help="Print what would be written and run, and change nothing.")
@click.option("--force", is_flag=True, help="Also replace what was changed by hand.")
@with_paths
@click.pass_context
def install(
    context: click.Context,
    paths: Paths,
    where: str | None,
    as_user: str | None,
    ping: str | None,
    dry_run: bool,
    force: bool,
) -> None:
    """Let this machine run the tick each minute, by a systemd timer or a line in the crontab.

    Without a choice: a timer of your own systemd where it runs, else of the system's for root, else the crontab where
    there is no systemd. The interpreter in use and the paths in force are written into it. May be run again at any time;
    the address of an earlier --ping stays.

    Exits with 0 when it is done, 65 for a path that can't be used, 69 without what was chosen, 73 if something changed by
    hand was kept, 74 if a step failed, 77 if another user has to do it.
    """
    where = where or _fitting()
    if as_user and where != SYSTEM:
        raise click.UsageError("--as-user goes with --system alone: the others are always this user's own")
    plan, tells = Plan(), _tick_ping(ping, where)
    if where == CRONTAB:
        _plan_crontab(plan, paths, tells, force=force)
    elif where == USER:
        _need_own_directory()
        if not dry_run:
            _need_user_manager()
        _plan_units(plan, USER, units.baked(sys.executable, paths, ping=tells), force=force)
        _note_linger(plan)
        _note_gateway_unit(plan, paths)
    else:
        if not dry_run:
            _need_system_manager()
        account = _account(as_user)
        paths = _paths_of(account, context.params)
        told = units.baked(sys.executable, paths, account.pw_name, tells)
        click.echo(f"bub-cron.service runs as {account.pw_name}, with {terminal.clean(paths.home)}", err=True)
        _check_interpreter(account)
        _plan_units(plan, SYSTEM, told, force=force, before=_making_state(account, paths.state))
    if where != SYSTEM:
        _note_owner(plan, paths)
    _note_others(plan, where)
    _note_missing(plan, paths)
    if not plan.steps and not plan.kept:
        click.echo("already installed, nothing to change", err=True)
    plan.carry_out(dry_run=dry_run, again="run `bub-cron install`")


def _tick_ping(given: str | None, where: str) -> units.TickPing | None:
    """Return who is told of each tick: the address given, else the one that is installed there."""
    if given == NONE:
        return None
    if given is None:
        if where == CRONTAB:
            text = "".join(entry.text for entry in units.entries(crontab()))
        else:
            text = _found(os.path.join(_unit_directory(where), units.SERVICE)) or ""
        given = units.ping_of(text)
    try:
        return units.TickPing(units.check_ping(given), shutil.which("curl") or sys.executable) if given else None
    except ValueError as error:
        raise click.UsageError(f"--ping {error}") from error


def _fitting() -> str:
    """Return what fits this machine and user; `NoSuchManagerError` says what there is to choose where that is open."""
    if _user_manager_runs():
        return USER
    if os.path.isdir(BOOTED):
        if os.geteuid() == 0:
            return SYSTEM
        raise NoSuchManagerError(
            f"no systemd of your own answers ({_said_wrong('systemctl', '--user', 'is-system-running')}), so choose: log in"
            " as this user rather than by su or sudo (or set XDG_RUNTIME_DIR) and use --user; or"
            " `sudo bub-cron install --system`; or --crontab"
        )
    if shutil.which("crontab"):
        return CRONTAB
    raise NoSuchManagerError("neither systemd nor crontab is here: run `bub-cron tick` each minute by what there is")


def _said_wrong(*command: str) -> str:
    done = output(*command)
    return " ".join(decoded(done.stderr or done.stdout).split()) or f"exit status {done.returncode}"


def _user_manager_runs() -> bool:
    return first_line("systemctl", "--user", "is-system-running") in _RUNNING


def _need_user_manager() -> None:
    if not _user_manager_runs():
        raise NoSuchManagerError(
            f"no systemd of your own answers ({_said_wrong('systemctl', '--user', 'is-system-running')}): log in as this"
            f" user rather than by su or sudo, or set XDG_RUNTIME_DIR=/run/user/{os.geteuid()}; `loginctl enable-linger`"
            " starts it"
        )


def _need_own_directory() -> None:
    """Refuse to write as root into somebody's home, where that one's links may lead anywhere."""
    directory = _unit_directory(USER)
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)
    if os.geteuid() == 0 and os.stat(directory).st_uid != 0:
        raise NotAllowedError(
            f"{directory} is not root's: run it as the user whose it is, without sudo, or use --system"
        )


def _need_system_manager() -> None:
    if os.geteuid() != 0:
        raise NotAllowedError("--system is for root: use sudo, or --user")
    if not os.path.isdir(BOOTED):
        raise NoSuchManagerError("systemd doesn't run this machine: use --crontab")


# --- Whose it is, for the system manager


def _account(as_user: str | None) -> pwd.struct_passwd:
    """Return who is to run a system unit: the one named; the owner of a BUB_HOME that was given; who called sudo; root.

    The stores are private to the gateway's user, so the tick has to be that user.
    """
    home = os.environ.get("BUB_HOME")
    sudo = os.environ.get("SUDO_USER")
    try:
        if as_user:
            return pwd.getpwnam(as_user)
        if home and os.path.exists(os.path.expanduser(home)):
            return pwd.getpwuid(os.stat(os.path.expanduser(home)).st_uid)
        return pwd.getpwnam(sudo) if sudo else pwd.getpwuid(os.geteuid())
    except KeyError as error:
        raise UnusablePathError(
            f"there is no user {as_user or sudo or f'who owns {home}'} here; name one by --as-user"
        ) from error


def _paths_of(account: pwd.struct_passwd, given: dict[str, str | None]) -> Paths:
    environ = {**os.environ, "BUB_HOME": os.environ.get("BUB_HOME") or os.path.join(account.pw_dir, ".bub")}
    return find_paths(environ, file=given["file"], state=given["state"], socket=given["socket"])


def _as(account: pwd.struct_passwd, *command: str) -> tuple[str, ...]:
    return command if account.pw_uid == os.geteuid() else ("runuser", "-u", account.pw_name, "--", *command)


def _check_interpreter(account: pwd.struct_passwd) -> None:
    if os.geteuid() != 0:
        return  # a dry run of someone who can't look
    done = output(*_as(account, sys.executable, "-P", "-B", "-c", "import bub_cron.trigger.tick"))
    if done.returncode != 0:
        said = decoded(done.stderr).strip().rpartition("\n")[2]
        raise UnusablePathError(
            f"{account.pw_name} can't run {sys.executable} with bub-cron ({said}): install it where {account.pw_name} can"
            " read it, or name another user by --as-user"
        )


def _making_state(account: pwd.struct_passwd, state: str) -> list[Step]:
    """Return the steps that make the directory of the stores: the unit may write there, not make it."""
    if os.path.isdir(state):
        return []
    # As that user, so that no link in that user's directories can lead root elsewhere.
    return [Run(*_as(account, "mkdir", "-p", "-m", "0700", state))]


# --- Units


def _unit_directory(manager: str) -> str:
    if manager == SYSTEM:
        return SYSTEM_UNITS
    config = os.environ.get("XDG_CONFIG_HOME", "")
    if not os.path.isabs(config):  # systemd, too, takes no other
        config = os.path.expanduser("~/.config")
    return os.path.join(config, "systemd", "user")


def _systemctl(manager: str, *arguments: str) -> tuple[str, ...]:
    return ("systemctl", *(("--user",) if manager == USER else ()), *arguments)


def _found(path: str) -> str | None:
    """Return a file's text; None if there is none. A link that leads nowhere is an empty one."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()
    except FileNotFoundError:
        return "" if os.path.islink(path) else None
    except OSError as error:
        raise NotAllowedError(f"{path} can't be read: {error.strerror}") from error


def _verdict(path: str, wanted: str) -> str:
    found = units.verdict(_found(path), wanted)
    # A link is someone's own doing.
    return units.CHANGED if found == units.OURS and os.path.islink(path) else found


def _plan_units(plan: Plan, manager: str, told: units.Baked, *, force: bool, before: list[Step] | None = None) -> None:
    plan.steps += before or []
    for name, text in units.unit_files(manager, told).items():
        path, wanted = os.path.join(_unit_directory(manager), name), units.signed(text)
        found = _verdict(path, wanted)
        if found == units.CHANGED and not force:
            plan.keep(path, _found(path) or "", wanted)
        elif found != units.SAME:
            plan.steps.append(Write(path, wanted))
            if name == units.SERVICE:
                _note_former_home(plan, _found(path) or "", wanted)
    enabled = first_line(*_systemctl(manager, "is-enabled", units.TIMER)) == "enabled"
    active = first_line(*_systemctl(manager, "is-active", units.TIMER)) == "active"
    if plan.steps or not enabled or not active:
        for arguments in (("daemon-reload",), ("enable", units.TIMER), ("restart", units.TIMER)):
            plan.steps.append(Run(*_systemctl(manager, *arguments)))
        plan.steps.append(FirstTick(*_systemctl(manager, "start", units.SERVICE)))


def _note_linger(plan: Plan) -> None:
    name = pwd.getpwuid(os.geteuid()).pw_name
    if first_line("loginctl", "show-user", name, "--property=Linger", "--value") != "yes":
        plan.notes.append("it runs only while you are logged in, until you run: loginctl enable-linger")


def _note_gateway_unit(plan: Plan, paths: Paths) -> None:
    """Tell what keeps the unit that `bub gateway --install` wrote from being the gateway of this tick."""
    if not os.path.exists(os.path.join(_unit_directory(USER), _GATEWAY)):
        return
    if first_line(*_systemctl(USER, "show", _GATEWAY, "--property=LoadState", "--value")) == "bad-setting":
        plan.notes.append(
            f"systemd refuses {_GATEWAY}, and `systemctl --user status {_GATEWAY}` says why; Bub 0.5.1 puts quotes around"
            " WorkingDirectory=, which systemd takes for a part of the path: take them away there"
        )
    environment = first_line(*_systemctl(USER, "show", _GATEWAY, "--property=Environment", "--value"))
    manager = decoded(output(*_systemctl(USER, "show-environment")).stdout)
    # It says nothing of BUB_HOME by itself.
    if paths.home != os.path.expanduser("~/.bub") and "BUB_HOME=" not in environment + manager:
        plan.notes.append(
            f"{_GATEWAY} uses ~/.bub, this {paths.home}: `systemctl --user edit {_GATEWAY}`, and there, below [Service],"
            " Environment=BUB_HOME=..."
        )


# --- The crontab


def _plan_crontab(plan: Plan, paths: Paths, ping: units.TickPing | None, *, force: bool) -> None:
    before, wanted = crontab(), units.crontab_entry(sys.executable, paths, ping)
    changed = [entry for entry in units.entries(before) if units.verdict(entry.text, wanted) == units.CHANGED]
    if changed and not force:
        for entry in changed:
            plan.keep("the crontab's entry", entry.text, wanted)
        return
    after = units.with_entry(before, wanted)
    if after != before:
        plan.steps.append(Run("crontab", "-", text=after))
        for entry in units.entries(before):
            _note_former_home(plan, entry.text, wanted)
        plan.steps.append(FirstTick(*units.tick_command(sys.executable, paths)))


# --- What is still missing, or there twice


def _note_others(plan: Plan, where: str) -> None:
    """Tell what else runs the tick: two do no harm, but nobody means them."""
    for manager in (USER, SYSTEM):
        path = os.path.join(_unit_directory(manager), units.TIMER)
        if where != manager and os.path.lexists(path):
            plan.notes.append(f"{path} is there, too: `bub-cron uninstall --{manager}` if one is enough")
    if shutil.which("crontab") is None:
        return
    with contextlib.suppress(NoSuchManagerError):  # who may not read the crontab has none
        there = crontab()
        for line in units.foreign_ticks(there):
            plan.notes.append(f"a line of the crontab that is not of `install` runs a tick, too: {line}")
        if where != CRONTAB and units.entries(there):
            plan.notes.append("the crontab has an entry, too: `bub-cron uninstall --crontab` if one is enough")


def _note_former_home(plan: Plan, before: str, wanted: str) -> None:
    """Tell of the reminders that nothing runs any more: there is one timer, or one entry, of ours for a user."""
    former = units.serves(before)
    if former is not None and former != units.serves(wanted):
        plan.notes.append(f"it served BUB_HOME={former} until now, and no longer does")


def _note_owner(plan: Plan, paths: Paths) -> None:
    if os.path.exists(paths.home) and os.stat(paths.home).st_uid != os.geteuid():
        plan.notes.append(f"{paths.home} is another user's: let that one run this, or root, with --system")


def _note_missing(plan: Plan, paths: Paths) -> None:
    if not os.path.exists(paths.file):
        plan.notes.append(f"there is no {paths.file} yet: `bub-cron init` writes one to start from")
    try:
        with Connection(paths.socket):
            pass
    except GatewayAbsentError:
        plan.notes.append(f"no gateway listens on {paths.socket} yet: start `bub gateway`, or `bub gateway --install`")


# --- The shell


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


# --- uninstall


@commands.command()
@_where
@click.option("--dry-run", is_flag=True, help="Print what would be removed and run, and change nothing.")
@click.option("--force", is_flag=True, help="Also remove what was changed by hand.")
@with_paths
def uninstall(paths: Paths, where: str | None, dry_run: bool, force: bool) -> None:
    """Undo what `install` did: all of it that is there, or what is chosen. Reminders and stores stay.

    Exits with 0 when nothing of it is left, 73 if something changed by hand was kept, 74 if a step failed, 77 if another
    user has to do it.
    """
    plan = Plan()
    for manager in (USER, SYSTEM):
        if where in (None, manager):
            _plan_unit_removal(plan, manager, paths, force=force, dry_run=dry_run, chosen=where == manager)
    if where == CRONTAB or (where is None and shutil.which("crontab")):
        _plan_entry_removal(plan, paths, force=force)
    if not plan.steps and not plan.kept and not plan.notes:
        click.echo("nothing of it is installed", err=True)
    plan.carry_out(dry_run=dry_run, again="run `bub-cron uninstall`")


def _plan_unit_removal(plan: Plan, manager: str, paths: Paths, *, force: bool, dry_run: bool, chosen: bool) -> None:
    """Plan the removal of a manager's units; a timer and its service go together or stay together."""
    directory = _unit_directory(manager)
    names = list(units.unit_files(manager, units.BY_HAND[manager]))
    found = {name: text for name in names if (text := _found(os.path.join(directory, name))) is not None}
    if found and manager == SYSTEM and os.geteuid() != 0 and not dry_run:
        if chosen:
            raise NotAllowedError(f"the units in {directory} are root's: use sudo")
        plan.notes.append(f"the units in {directory} are root's, and stay: `sudo bub-cron uninstall --system`")
        return
    gone: list[str] = []
    instances = _enabled_instances(directory)
    for pair in ([units.SERVICE, units.TIMER], list(units.TEMPLATES)):
        there = [name for name in pair if name in found]
        changed = [name for name in there if not units.is_as_written(found[name])]
        for name in changed if not force else ():
            wanted = units.unit_files(manager, units.baked(sys.executable, paths))[name]
            plan.keep(os.path.join(directory, name), found[name], units.signed(wanted))
        if instances and there == list(units.TEMPLATES) and not force:
            plan.kept.append(f"{', '.join(there)} stay for {', '.join(instances)}, which you enabled")
        elif there and (force or not changed):
            gone += there
    timers = [name for name in gone if name == units.TIMER] + (instances if units.TEMPLATES[1] in gone else [])
    if timers:
        plan.steps.append(Run(*_systemctl(manager, "disable", "--now", *timers)))
    # Else it would stay in the list of what failed, though it is gone.
    if units.SERVICE in gone and first_line(*_systemctl(manager, "is-failed", units.SERVICE)) == "failed":
        plan.steps.append(Run(*_systemctl(manager, "reset-failed", units.SERVICE)))
    plan.steps += [Remove(os.path.join(directory, name)) for name in gone]
    if gone:
        plan.steps.append(Run(*_systemctl(manager, "daemon-reload")))


def _enabled_instances(directory: str) -> list[str]:
    try:
        names = os.listdir(os.path.join(directory, "timers.target.wants"))
    except OSError:  # no timer is enabled
        return []
    return sorted(name for name in names if name.startswith("bub-cron@") and name.endswith(".timer"))


def _plan_entry_removal(plan: Plan, paths: Paths, *, force: bool) -> None:
    before = crontab()
    there = units.entries(before)
    gone = [entry for entry in there if force or units.is_as_written(entry.text)]
    for entry in there:
        if entry not in gone:
            plan.keep("the crontab's entry", entry.text, units.crontab_entry(sys.executable, paths))
    after = units.without(before, gone)
    if gone:
        # What `install` made of no crontab is no crontab again.
        plan.steps.append(Run("crontab", "-", text=after) if after else Run("crontab", "-r"))
