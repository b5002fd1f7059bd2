"""The command ``corpusmill plan-epochs``: how often a training run would read a pruned corpus."""

import argparse
import json
from collections.abc import Callable
from typing import Any

from corpusmill.errors import ConfigError
from corpusmill.pruning.epoch_planner import plan_epochs, token_count

Say = Callable[[str], None]


def add_epoch_command(commands: Any, say: Say, out: Say) -> None:
    """Adds ``corpusmill plan-epochs`` to the parser.

    Args:
        commands: The parser's subparsers.
        say: Writes a line for a person.
        out: Writes a line of the result.
    """
    plan = commands.add_parser(
        "plan-epochs",
        help="how often a token budget repeats a pruned corpus",
        description="Epochs are budget / kept tokens; more than 4 are warned of. The tokens come from a recipe's "
        "published corpus (counted by its reference model's tokenizer), or are given.",
    )
    plan.add_argument("--budget", required=True, metavar="N", help="tokens that training reads, e.g. 33e9 or 33B")
    source = plan.add_mutually_exclusive_group(required=True)
    source.add_argument("--recipe", metavar="NAME", help="recipe whose published corpus is trained on")
    source.add_argument("--kept-tokens", metavar="N", help="tokens of the corpus, e.g. 7.6B")
    plan.set_defaults(run=lambda parsed: _plan(parsed, say, out))


def _plan(parsed: argparse.Namespace, say: Say, out: Say) -> int:
    budget = token_count(parsed.budget)
    kept = token_count(parsed.kept_tokens) if parsed.kept_tokens is not None else _published_tokens(parsed.recipe)
    planned = plan_epochs(kept, budget)
    epochs = f"{float(planned.epochs):.2f} epochs"
    say(f"{planned.budget:,} tokens of training / {planned.kept_tokens:,} kept tokens = {epochs}")
    if planned.warning is not None:
        say(f"warning: {planned.warning}")
    out(json.dumps(planned.to_json()))
    return 0


def _published_tokens(recipe: str) -> int:
    from corpusmill.runner.open_lakehouse import open_lakehouse
    from corpusmill.runner.selection_summary import NO_TOKENS, corpus_tokens

    tokens = corpus_tokens(open_lakehouse(), recipe)
    if not tokens:
        raise ConfigError(f"--recipe {recipe}: {NO_TOKENS}; give --kept-tokens instead")
    return tokens
