"""Breaks a running bridge in every way that is known, under load, and counts what is lost: `make chaos`."""
