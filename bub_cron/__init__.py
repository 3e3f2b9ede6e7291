"""Reminders on a schedule for Bub: the machine keeps the time, the live gateway delivers."""

__version__ = "0.1.0"
