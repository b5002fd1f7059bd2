"""ProX: refining documents and chunks with programs written by small language models."""
