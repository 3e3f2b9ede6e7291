"""The command that sets the machine up to run the tick: install.

Invariants:
- What is to be done is planned first, and planning only reads; nothing is done that was not in the plan.
- What someone changed by hand, what runs the tick for another home, and every other line of a crontab, stays unless
  `--force` says otherwise.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
import shutil
import sys
from collections.abc import Callable

import click

from bub_cron import terminal
from bub_cron.checkers import NONE
from bub_cron.cli.base import commands, with_paths
from bub_cron.cli.steps import FirstTick, Plan, Run, Step, Write, found_at
from bub_cron.errors import (
    GatewayAbsentError,
    NoSuchManagerError,
    NotAllowedError,
    OtherHomeError,
    UnusablePathError,
    user_name,
)
from bub_cron.health.gateways import UNIT, unit_trouble
from bub_cron.paths import Paths, find_paths
from bub_cron.programs import crontab, decoded, first_line, output, run_by, shown_properties
from bub_cron.trigger import crontabs, machine, units
from bub_cron.trigger.client import Connection
from bub_cron.trigger.machine import CRONTAB, Trigger, systemctl, unit_directory, user_manager_runs
from bub_cron.trigger.remedies import command_line, gateway_line
from bub_cron.trigger.units import SYSTEM, USER

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}")


def where_option[R](command: Callable[..., R]) -> Callable[..., R]:
    for name, says in (
        (CRONTAB, "A line in the crontab of this user."),
        (SYSTEM, "Units of the system manager, in /etc/systemd/system; needs root."),
        (USER, "Units of this user's own systemd, in ~/.config/systemd/user."),
    ):
        command = click.option(f"--{name}", "where", flag_value=name, help=says)(command)
    return command


def _checked_name(_: click.Context, __: click.Parameter, name: str) -> str:
    if name and not _NAME.fullmatch(name):
        raise click.BadParameter("may have letters, digits, _, . and -, and at most 40 of them")
    return name


name_option = click.option(
    "--name", default="", metavar="NAME", callback=_checked_name, help="Units bub-cron-NAME, for a second home."
)


def named(name: str) -> list[str]:
    """Return the option that gives a name, for a command line; [] without one."""
    return ["--name", name] if name else []


@commands.command()
@where_option
@name_option
@click.option("--as-user", metavar="NAME", help="With --system: who runs it, the user of the gateway.")
@click.option(
    "--ping", metavar="URL", help="Tell this address how each tick ended, by a POST to URL/EXIT_STATUS; none: no more."
)
@click.option("--dry-run", is_flag=True, help="Print what would be written and run, and change nothing.")
@click.option("--force", is_flag=True, help="Also replace what was changed by hand, or is for another home.")
@with_paths
@click.pass_context
def install(
    context: click.Context,
    paths: Paths,
    where: str | None,
    name: str,
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
    hand, or for another home, was kept, 74 if a step failed, 77 if another user has to do it.
    """
    where = where or _fitting(paths)
    if as_user and where != SYSTEM:
        raise click.UsageError("--as-user goes with --system alone: the others are always this user's own")
    plan = Plan()
    account = _account(as_user) if where == SYSTEM else None
    if account is not None:
        paths = _paths_of(account, context.params)
    _need(where, dry_run=dry_run)
    before = _installed(where, name)
    _need_same_home(before, paths, name, force=force)
    tells = _tick_ping(ping, before)
    if where == CRONTAB:
        _plan_crontab(plan, paths, tells, name, force=force)
        if not machine.cron_runs():
            plan.notes.append(
                f"nothing runs the tick yet, since no cron daemon is seen to run: {machine.start_of_cron()}"
            )
    elif account is None:
        _plan_units(plan, USER, units.baked(sys.executable, paths, ping=tells), name, force=force)
        if not machine.lingers():
            plan.notes.append("it runs only while you are logged in, until you run: loginctl enable-linger")
        _note_gateway_unit(plan, paths)
    else:
        baked = units.baked(sys.executable, paths, account.pw_name, tells)
        runs_as = f"{units.names(name).service} runs as {account.pw_name}, with {terminal.clean(paths.home)}"
        click.echo(runs_as, err=True)
        _check_interpreter(account)
        _plan_units(plan, SYSTEM, baked, name, force=force, before=_making_state(account, paths.state))
    if where != SYSTEM:
        _note_owner(plan, paths)
    _note_others(plan, where, paths)
    _note_missing(plan, paths)
    if not plan.steps and not plan.kept:
        click.echo("already installed, nothing to change", err=True)
    plan.carry_out(dry_run=dry_run, again=f"run `{command_line(paths, 'install', f'--{where}', *named(name))}`")


def _need(where: str, *, dry_run: bool) -> None:
    """Raise where the manager that was chosen can't be used by this user."""
    if where == USER:
        _need_own_directory()
    if dry_run or where == CRONTAB:
        return
    if where == USER and not user_manager_runs():
        raise NoSuchManagerError(
            f"no systemd of your own answers ({_said_wrong(*systemctl(USER, 'is-system-running'))}): log in as this"
            f" user rather than by su or sudo, or set XDG_RUNTIME_DIR=/run/user/{os.geteuid()}; `loginctl enable-linger`"
            " starts it"
        )
    if where == SYSTEM and os.geteuid() != 0:
        raise NotAllowedError("--system is for root: use sudo, or --user")
    if where == SYSTEM and not os.path.isdir(machine.BOOTED):
        raise NoSuchManagerError("systemd doesn't run this machine: use --crontab")


def _installed(where: str, name: str) -> str:
    """Return the text of what `install` made there before, of this name; "" for nothing."""
    if where == CRONTAB:
        return "".join(entry.text for entry in crontabs.entries(crontab()) if entry.name == name)
    return found_at(os.path.join(unit_directory(where), units.names(name).service)) or ""


def _need_same_home(before: str, paths: Paths, name: str, *, force: bool) -> None:
    former = units.serves(before)
    same = {units.written(paths.home), crontabs.written(paths.home)}
    if former is None or force or former in same or machine.is_same(former, paths.home):
        return
    install = command_line(paths, "install")
    raise OtherHomeError(
        f"`{shlex.join(['bub-cron', 'install', *named(name)])}` runs the tick for BUB_HOME={former} already, and this is {paths.home}: `{install} --name NAME` sets up"
        " another one beside it; --force takes it over, and nothing runs the tick for the other home any more"
    )


def _tick_ping(given: str | None, before: str) -> units.TickPing | None:
    """Return who is told of each tick: the address given, else the one that is installed there."""
    if given == NONE:
        return None
    given = units.ping_of(before) if given is None else given
    try:
        return units.TickPing(units.check_ping(given), shutil.which("curl") or sys.executable) if given else None
    except ValueError as error:
        raise click.UsageError(f"--ping {error}") from error


def _fitting(paths: Paths) -> str:
    """Return what fits this machine and user; `NoSuchManagerError` says what there is to choose where that is open."""
    if user_manager_runs():
        return USER
    if os.path.isdir(machine.BOOTED):
        if os.geteuid() == 0:
            return SYSTEM
        raise NoSuchManagerError(
            f"no systemd of your own answers ({_said_wrong('systemctl', '--user', 'is-system-running')}), so choose: log in"
            " as this user rather than by su or sudo (or set XDG_RUNTIME_DIR) and use --user; or"
            f" `{command_line(paths, 'install', '--system', uid=0)}`; or --crontab"
        )
    if shutil.which("crontab"):
        return CRONTAB
    raise NoSuchManagerError("neither systemd nor crontab is here: run `bub-cron tick` each minute by what there is")


def _said_wrong(*command: str) -> str:
    done = output(*command)
    return " ".join(decoded(done.stderr or done.stdout).split()) or f"exit status {done.returncode}"


def _need_own_directory() -> None:
    """Refuse to write as root into somebody's home, where that one's links may lead anywhere."""
    directory = unit_directory(USER)
    while not os.path.lexists(directory):
        directory = os.path.dirname(directory)
    if os.geteuid() == 0 and os.stat(directory).st_uid != 0:
        raise NotAllowedError(
            f"{directory} is not root's: run it as the user whose it is, without sudo, or use --system"
        )


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


def _check_interpreter(account: pwd.struct_passwd) -> None:
    if os.geteuid() != 0:
        return  # a dry run of someone who can't look
    done = output(*run_by(account.pw_name, sys.executable, "-P", "-B", "-c", "import bub_cron.trigger.tick"))
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
    return [Run(*run_by(account.pw_name, "mkdir", "-p", "-m", "0700", state))]


# --- Units and crontab


def _plan_units(
    plan: Plan, manager: str, baked: units.Baked, name: str, *, force: bool, before: list[Step] | None = None
) -> None:
    plan.steps += before or []
    for unit, text in units.unit_files(manager, baked, name).items():
        path, wanted = os.path.join(unit_directory(manager), unit), units.signed(text)
        verdict = units.verdict(found_at(path), wanted)
        if verdict == units.CHANGED or (
            verdict == units.OURS and os.path.islink(path)
        ):  # a link is someone's own doing
            if not force:
                plan.keep(path, found_at(path) or "", wanted, "as it would be written")
                continue
            verdict = units.CHANGED
        if verdict != units.SAME:
            plan.steps.append(Write(path, wanted))
    service, timer = units.names(name)[:2]
    enabled = first_line(*systemctl(manager, "is-enabled", timer)) == "enabled"
    active = first_line(*systemctl(manager, "is-active", timer)) == "active"
    if plan.steps or not enabled or not active:
        for arguments in (("daemon-reload",), ("enable", timer), ("restart", timer)):
            plan.steps.append(Run(*systemctl(manager, *arguments)))

        def reason() -> str:
            return shown_properties(manager == USER, service, "StatusText").get("StatusText", "")

        plan.steps.append(FirstTick(*systemctl(manager, "start", service), reason=reason))


def _plan_crontab(plan: Plan, paths: Paths, ping: units.TickPing | None, name: str, *, force: bool) -> None:
    before, wanted = crontab(), crontabs.crontab_entry(sys.executable, paths, ping, name)
    for entry in crontabs.entries(before):
        if entry.name == name and units.verdict(entry.text, wanted) == units.CHANGED and not force:
            plan.keep("the crontab's entry", entry.text, wanted, "as it would be written")
    after = crontabs.with_entry(before, wanted, name)
    if after != before and not plan.kept:
        plan.steps.append(Run("crontab", "-", text=after))
        plan.steps.append(FirstTick(*crontabs.tick_command(sys.executable, paths)))


# --- What is still missing, or there twice


def _note_others(plan: Plan, where: str, paths: Paths) -> None:
    """Tell what else runs the tick for these places: two do no harm, but nobody means them."""
    for trigger in machine.find_triggers():
        if trigger.serves(paths) and trigger.manager != where:
            plan.notes.append(f"{trigger.what} runs the tick for the same places{_too(trigger)}")
    if where == CRONTAB or shutil.which("crontab"):
        for line in _foreign_ticks():
            plan.notes.append(f"a line of the crontab that `install` did not write runs a tick, too: {line}")


def _too(trigger: Trigger) -> str:
    uninstall = shlex.join(["bub-cron", "uninstall", f"--{trigger.manager}", *named(trigger.name)])
    return f", too: `{uninstall}` if one is enough" if trigger.is_ours else ", too"


def _foreign_ticks() -> list[str]:
    try:
        return crontabs.foreign_ticks(crontab())
    except NoSuchManagerError:  # who may not read the crontab has none
        return []


def _note_gateway_unit(plan: Plan, paths: Paths) -> None:
    """Tell what keeps the unit that `bub gateway --install` wrote from being the gateway of this tick."""
    if not os.path.exists(os.path.join(unit_directory(USER), UNIT)):
        return
    if (cause := unit_trouble(is_absent=False)) is not None:
        plan.notes.append(f"{cause.text}; run: {cause.remedy}")
    environment = first_line(*systemctl(USER, "show", UNIT, "--property=Environment", "--value"))
    manager = decoded(output(*systemctl(USER, "show-environment")).stdout)
    # It says nothing of BUB_HOME by itself.
    if paths.home != os.path.expanduser("~/.bub") and "BUB_HOME=" not in environment + manager:
        plan.notes.append(
            f"{UNIT} uses ~/.bub, this {paths.home}: `systemctl --user edit {UNIT}`, and there, below [Service],"
            " Environment=BUB_HOME=..."
        )


def _note_owner(plan: Plan, paths: Paths) -> None:
    if os.path.exists(paths.home) and (owner := os.stat(paths.home).st_uid) != os.geteuid():
        plan.notes.append(f"{paths.home} is {user_name(owner)}'s: let that one run this, or root, with --system")


def _note_missing(plan: Plan, paths: Paths) -> None:
    if not os.path.exists(paths.file):
        plan.notes.append(f"there is no {paths.file} yet: `{command_line(paths, 'init')}` writes one to start from")
    try:
        with Connection(paths.socket):
            pass
    except GatewayAbsentError:
        plan.notes.append(
            f"no gateway listens on {paths.socket} yet: start `{gateway_line(paths)}`, or `bub gateway --install`"
        )
