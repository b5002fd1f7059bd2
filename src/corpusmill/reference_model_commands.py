"""The command that builds a reference model by its recipe, as the DAG ``build_reference_model_<name>`` does."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Say = Callable[[str], None]


def add_reference_model_commands(commands: Any, say: Say, out: Say) -> None:
    """Adds the command to the parser.

    Args:
        commands: The parser's subparsers.
        say: Writes a line of progress.
        out: Writes a line of the result.
    """
    build = commands.add_parser(
        "build-reference-model",
        help="train, measure and register a reference model",
        description="Runs the steps of the DAG build_reference_model_<name> in one process, one seed after another. A "
        "build that is there is found; one that was killed goes on.",
    )
    build.add_argument("--recipe", type=Path, required=True, metavar="F", help="dags/reference_models/*.yaml")
    build.set_defaults(run=lambda parsed: _build(parsed, say, out))


def _build(parsed: argparse.Namespace, say: Say, out: Say) -> int:
    import os
    import time

    from corpusmill.reference_model_recipe import load_reference_model_recipe
    from corpusmill.runner.chain import initialise
    from corpusmill.runner.reference_building import chain

    recipe = load_reference_model_recipe(parsed.recipe)
    initialise([])
    run_id = f"build__{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}__{os.getpid()}"
    out(json.dumps(chain.build(recipe.model_dump(mode="json"), run_id, say)))
    return 0
