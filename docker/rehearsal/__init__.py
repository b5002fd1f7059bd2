"""Runs what compose.yaml describes without a container engine: the same processes with the same environment."""
