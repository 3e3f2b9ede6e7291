"""The commands: the operator's face. `contents.py` lists them.

Invariants: data goes to standard output, words about it to standard error; commands that only look change nothing.
"""

from bub_cron.cli.base import commands

__all__ = ["commands"]
