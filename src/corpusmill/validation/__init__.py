"""Checks on what a run made, before anybody reads it."""
