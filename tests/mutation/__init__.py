"""Breaks the rules on purpose, one place at a time, and asks whether the tests notice."""
