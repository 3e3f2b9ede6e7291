"""The command `bub-cron`: straight to the tick where that is what is asked for, else to the commands.

A tick runs every minute of every day, so it must not pay for click and for what the other commands load, nor for taking
an interpreter down in order, which would be a tenth of its cost.
"""

import sys


def main() -> None:
    """Run the command line and end the process with its status."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["tick"]:
        options = _path_options(arguments[1:])
        if options is not None:
            leave(_tick(options))
    import gc

    gc.disable()  # it ends soon; `log --follow`, which doesn't, enables it again
    from bub_cron.cli import commands

    commands(prog_name="bub-cron")


def _tick(options: dict[str, str]) -> int:
    import gc

    # Nothing of so short a life is worth looking for in circles.
    gc.disable()
    import time

    from bub_cron.paths import find_paths
    from bub_cron.trigger import tick

    try:
        paths = find_paths(file=options.get("file"), state=options.get("state"), socket=options.get("socket"))
    except Exception as error:
        from bub_cron.errors import UnusablePathError

        if not isinstance(error, UnusablePathError):
            raise
        print(f"bub-cron: {error}", file=sys.stderr)
        return error.exit_status
    return tick.run(paths, time.time())


def leave(status: int) -> None:
    """End the process at once: what the tick opened is closed, and what it printed goes out here."""
    import os

    try:
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # also where nobody reads it any more: the status says it all the same
        os._exit(status)


def _path_options(arguments: list[str]) -> dict[str, str] | None:
    """Return `--file`, `--state` and `--socket` by name; None if there is anything else, which click is to judge."""
    options: dict[str, str] = {}
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option not in ("--file", "--state", "--socket"):
            return None
        given = value if equals else next(rest, None)
        if not given:
            return None
        options[option.removeprefix("--")] = given
    return options


if __name__ == "__main__":
    main()
