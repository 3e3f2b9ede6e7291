"""Write docs/states.md from the tables of `bub_cron.states`: `make docs` runs it."""

from __future__ import annotations

from pathlib import Path

from bub_cron import states

TABLES = (
    ("A firing in the ledger", "The ledger (`ledger.db`) is the tick's.", states.LEDGER_MOVES),
    ("A firing in the inbox", "The inbox (`inbox.db`) is the gateway's.", states.FIRING_MOVES),
    ("A message", "What goes to a chat. A firing's outcome is the worst of its replies'.", states.MESSAGE_MOVES),
)


def main() -> None:
    assert states.__doc__ is not None
    _, _, described = states.__doc__.partition("The states of a firing:")
    lines = ["# States", "", "Made from `bub_cron/states.py` by `make docs`. Don't edit it by hand.", ""]
    lines += ["```text", f"The states of a firing:{described}".rstrip(), "```", ""]
    for title, about, moves in TABLES:
        lines += [f"## {title}", "", about, "", "| event | from | to | meaning |", "|---|---|---|---|"]
        for event, move in moves.items():
            source, target = ", ".join(move.sources) or "(none)", move.state or "(gone)"
            lines.append(f"| {event} | {source} | {target} | {move.meaning} |")
        lines.append("")
    lines += ["## Reasons", "", "Why a firing ended, in `log --json` and in an answer.", ""]
    lines += ["| reason | meaning |", "|---|---|"]
    lines += [f"| {code} | {meaning} |" for code, meaning in states.REASONS.items()]
    Path(__file__).with_name("states.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
