"""The kinds of refiner that are trained from labelled pages, by name."""

from collections.abc import Callable
from typing import Any, Literal

Kind = Literal["labeller", "program-writer", "program-model"]
KINDS: tuple[Kind, ...] = ("labeller", "program-writer", "program-model")
"""``labeller``: a logit a line; ``program-writer``: a small decoder over lines; ``program-model``: a causal language
model that writes programs as text."""


Trainer = Callable[..., dict[str, Any]]
"""Trains, measures and writes a model folder, and returns its quality: takes ``train_file``, ``dev_file`` and
``out_dir``, then by keyword ``minutes`` or ``steps``, ``seed``, ``progress``, and what its kind alone has."""


def trainer_of(kind: Kind) -> Trainer:
    """Returns the trainer of a kind; loads torch only now."""
    if kind == "labeller":
        from corpusmill.prox.refiner_training import train_labeller

        return train_labeller
    if kind == "program-writer":
        from corpusmill.prox.writer_training import train_program_writer

        return train_program_writer
    from corpusmill.prox.program_model_training import train_program_model

    return train_program_model
