"""Fuzzing of the parsers; run.py says how."""
