"""The command that writes the deduplication index of a crawl again."""

import argparse
import json
from collections.abc import Callable
from typing import Any

Say = Callable[[str], None]


def add_dedup_commands(commands: Any, say: Say, out: Say) -> None:
    """Adds the command to the parser.

    Args:
        commands: The parser's subparsers.
        say: Writes a line of progress.
        out: Writes a line of the result.
    """
    rebuild = commands.add_parser(
        "rebuild-index",
        help="write the deduplication index of a crawl again",
        description="For an index that cannot be read, or that another version made. It is made from the stored "
        "documents of the crawl's newest run and replaces the old files in one snapshot; no other table changes.",
    )
    rebuild.add_argument("recipe", metavar="RECIPE", help="name of the recipe: the namespace of its tables")
    rebuild.add_argument("crawl", metavar="CRAWL", help="crawl id")
    rebuild.set_defaults(run=lambda parsed: _rebuild(parsed, say, out))


def _rebuild(parsed: argparse.Namespace, say: Say, out: Say) -> int:
    from corpusmill.runner.dedup_index import rebuild_index
    from corpusmill.runner.open_lakehouse import open_lakehouse

    say(f"index of {parsed.crawl} in {parsed.recipe}.minhash: made again from {parsed.recipe}.documents")
    rows = rebuild_index(open_lakehouse(), parsed.recipe, parsed.crawl)
    out(json.dumps({"recipe": parsed.recipe, "crawl": parsed.crawl, "rows": rows}))
    return 0
