"""The command around ablations: one experiment by its recipe, without Airflow."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpusmill.ablation.config import load_ablation

Say = Callable[[str], None]


def add_ablation_command(commands: Any, say: Say, out: Say) -> None:
    """Adds ``corpusmill ablation`` to the parser.

    Args:
        commands: The parser's subparsers.
        say: Writes a line of progress.
        out: Writes a line of the result.
    """
    ablation = commands.add_parser(
        "ablation",
        help="train students on differently pruned corpora and compare them",
        description="Runs the steps of the DAG ablation_<name> in this process. What is done already under --out is "
        "not done again; the last line is JSON with the places of the report.",
    )
    ablation.add_argument("--recipe", required=True, type=Path, metavar="F", help="dags/ablations/*.yaml")
    ablation.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of all results")
    ablation.set_defaults(run=lambda parsed: _ablation(parsed, say, out))


def _ablation(parsed: argparse.Namespace, say: Say, out: Say) -> int:
    recipe = load_ablation(parsed.recipe)
    from corpusmill.ablation.experiment import ablate

    out(json.dumps(ablate(recipe.model_dump(mode="json"), str(parsed.out), say)))
    return 0
