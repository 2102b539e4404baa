"""Implementations of the ports against the real world."""
