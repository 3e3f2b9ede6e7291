"""What a person types to put something right: commands with the paths and flags in force, as the right user.

Invariants: what the environment doesn't give is spelled out; nothing is changed or run here.
"""

from __future__ import annotations

import json
import os
import pwd
import shlex
import shutil
from importlib import metadata
from urllib.parse import unquote

from bub_cron.paths import VARIABLES, Paths, find_paths
from bub_cron.trigger.machine import FLAGS, is_same

_SUDO_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def command_line(paths: Paths, *words: str, uid: int | None = None) -> str:
    """Return `bub-cron WORDS` as it is typed for these paths: what the environment doesn't give is spelled out.

    With `uid`, as that user runs it through sudo, which passes no environment on.
    """
    environ, before, program = dict(os.environ), "", "bub-cron"
    if uid is not None and uid != os.geteuid():
        environ = {"BUB_HOME": "/"}
        account = f"'#{uid}'"
        try:
            found = pwd.getpwuid(uid)
            environ, account = {"BUB_HOME": os.path.join(found.pw_dir, ".bub")}, shlex.quote(found.pw_name)
        except KeyError:
            pass  # a user that has a number alone
        before = "sudo " if uid == 0 else f"sudo -u {account} "
        if shutil.which(program, path=_SUDO_PATH) is None:
            program = shlex.quote(shutil.which(program) or program)
    if not is_same(paths.home, find_paths(environ).home):
        before += f"{'env ' if before else ''}BUB_HOME={shlex.quote(paths.home)} "
        environ["BUB_HOME"] = paths.home
    usual = find_paths(environ)
    flags = [f"--{name}" for name in FLAGS if not is_same(getattr(paths, name), getattr(usual, name))]
    given = " ".join(f"{flag} {shlex.quote(getattr(paths, flag[2:]))}" for flag in flags)
    return f"{before}{program} {shlex.join(words)}{f' {given}' if given else ''}"


def gateway_line(paths: Paths) -> str:
    """Return what starts a gateway for these paths: what the environment doesn't give is spelled out."""
    environ, given = dict(os.environ), ""
    for variable, name in zip(VARIABLES, ("home", *FLAGS), strict=True):
        path = getattr(paths, name)
        if not is_same(path, getattr(find_paths(environ), name)):
            given += f"{variable}={shlex.quote(path)} "
            environ[variable] = path
    return f"{given}bub gateway"


def installed_from() -> str:
    """Return what pip installs this bub-cron from: the directory or the address that it came from, else its name."""
    try:
        came = json.loads(metadata.distribution("bub-cron").read_text("direct_url.json") or "{}")
    except (metadata.PackageNotFoundError, ValueError):
        return "bub-cron"
    url = str(came.get("url", ""))
    if url.startswith("file://"):
        return unquote(url.removeprefix("file://"))
    vcs = came.get("vcs_info", {})
    at = f"@{vcs['commit_id']}" if vcs.get("commit_id") else ""
    return f"{vcs['vcs']}+{url}{at}" if vcs.get("vcs") else url or "bub-cron"


def owner_of(paths: Paths) -> int | None:
    """Return the user, by uid, whose these places are and who alone can use them, if that isn't this one; else None."""
    directory, is_closed = paths.state, False
    while True:
        try:
            owner = os.stat(directory).st_uid
            break
        except PermissionError:
            is_closed = True
        except OSError:
            pass  # not there yet
        directory = os.path.dirname(directory)
    is_theirs = is_closed or owner != 0 or directory == paths.state  # where nothing is yet, root has made the way
    return owner if is_theirs and owner != os.geteuid() and os.geteuid() != 0 else None
