"""What `bub-cron --help` says of each command, and the module that has it.

Invariants: strings alone. `--help`, and a shell that completes a command's name, load no command for them.
"""

from typing import NamedTuple


class Entry(NamedTuple):
    """One command: its module in `bub_cron.cli`, a summary that fits 80 columns, examples, exit statuses besides 2."""

    module: str
    summary: str
    examples: tuple[str, ...]
    exits: str = "0"


_FILE = "0, 65, 66"
_REMINDER = "0, 1 no such reminder, 65, 66"
_NOW = "0 a good outcome, 1 a bad one, 65, 66, 69 no gateway"
_HOLD = "0, 1 no such reminder, 65, 66, 74"
_DO = "0, 69, 73, 74, 77"

GROUPS: dict[str, dict[str, Entry]] = {
    "Reminders": {
        "init": Entry("file", "Write a starter file.", ("bub-cron init",), "0, 73"),
        "check": Entry(
            "file", "Print the file's faults and warnings.", ("bub-cron check", "bub-cron check --json"), _FILE
        ),
        "list": Entry(
            "look", "Show all reminders, with next and last.", ("bub-cron list", "bub-cron list --json"), _FILE
        ),
        "show": Entry("show", "Show everything about one reminder.", ("bub-cron show standup",), _REMINDER),
        "next": Entry(
            "look",
            "Show the fire times to come.",
            (
                "bub-cron next standup -n 3",
                "bub-cron next --until tomorrow",
                "bub-cron next --cron '0 9 * * mon-fri' --timezone Europe/Berlin",
            ),
            _REMINDER,
        ),
        "week": Entry(
            "week", "Show seven days, a column each.", ("bub-cron week", "bub-cron week --after 2026-12-21"), _FILE
        ),
        "ics": Entry("ics", "Print the fire times as iCalendar.", ("bub-cron ics --days 90 > reminders.ics",), _FILE),
        "schema": Entry("file", "Print the JSON Schema of the file.", ("bub-cron schema > reminders.schema.json",)),
        "remove": Entry(
            "remove",
            "Remove a reminder made in chat.",
            ("bub-cron remove cake",),
            "0, 1 no such reminder in chat, 65, 66, 73",
        ),
    },
    "Now": {
        "fire": Entry(
            "now", "Fire a reminder now.", ("bub-cron fire standup", "bub-cron fire standup --no-wait"), _NOW
        ),
        "send": Entry(
            "now",
            "Send a text, or run a prompt, now.",
            (
                "bub-cron send --to telegram:123456789 --text hello",
                "df -h | bub-cron send --to telegram:123456789 --text -",
            ),
            "0 good, 1 not, 69",
        ),
        "gate": Entry("usage", "Run a reminder's gate by hand.", ("bub-cron gate mail",), "the gate's own"),
        "pause": Entry(
            "pausing",
            "Pause reminders.",
            (
                'bub-cron pause pills standup --until 2027-01-02 --why "in hospital"',
                "bub-cron pause --all --until tomorrow",
            ),
            _HOLD,
        ),
        "resume": Entry("pausing", "End pauses and skips.", ("bub-cron resume pills", "bub-cron resume --all"), _HOLD),
        "skip": Entry("pausing", "Skip a reminder's next fire times.", ("bub-cron skip standup -n 2",), _HOLD),
    },
    "What happened": {
        "log": Entry(
            "firings",
            "Show firings and what became of them.",
            ("bub-cron log", "bub-cron log standup --since yesterday", "bub-cron log --outcome failed --since 2d"),
            "0, 1 no such reminder",
        ),
        "usage": Entry("usage", "Show tokens, time and outcomes by reminder.", ("bub-cron usage --days 7",)),
    },
    "This machine": {
        "tick": Entry(
            "firings", "Record and submit what is due (for cron, systemd).", ("bub-cron tick",), "0, 65, 66, 69, 74, 76"
        ),
        "install": Entry(
            "install",
            "Let the machine run the tick each minute.",
            ("bub-cron install --dry-run", "bub-cron install --user"),
            f"{_DO}, 65",
        ),
        "uninstall": Entry("uninstall", "Undo what install did.", ("bub-cron uninstall --dry-run",), _DO),
        "status": Entry(
            "state", "Show the state of everything, and what needs fixing.", ("bub-cron status",), "0, 1 needs fixing"
        ),
        "metrics": Entry("state", "Print what status tells as OpenMetrics.", ("bub-cron metrics",)),
        "doctor": Entry(
            "state", "Examine the whole chain, with remedies.", ("bub-cron doctor",), "0, 1 a link is broken"
        ),
        "chats": Entry("chats", "Show the chats that this gateway has seen.", ("bub-cron chats",), "0, 69"),
        "completion": Entry(
            "completion", "Print the shell's completion script.", ('eval "$(bub-cron completion bash)"',)
        ),
    },
}
OTHER = "Other"  # the group of commands that have no entry here
ENTRIES = {name: entry for entries in GROUPS.values() for name, entry in entries.items()}

STATUSES = (
    ("0", "done; all is well"),
    ("1", "no such reminder, a bad outcome, or something needs fixing"),
    ("2", "wrong usage of the command line"),
    ("65", "a reminders file has a fault"),
    ("66", "there is no reminders file"),
    ("69", "no gateway listens, or something isn't installed"),
    ("73", "a file is there already, or was changed by hand"),
    ("74", "a store or a file can't be written"),
    ("76", "the gateway rejected a firing"),
    ("77", "not allowed: another user has to do it"),
)
EXAMPLES = ("bub-cron init", "bub-cron next", "bub-cron log standup")
