"""The command ``corpusmill doctor``: checks an installation and says what to do about each finding."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Say = Callable[[str], None]
MARKS = {"ok": "ok     ", "warning": "WARNING", "error": "ERROR  "}


def add_doctor_command(commands: Any, recipe_folder: Callable[[], Path], out: Say) -> None:
    """Adds ``corpusmill doctor`` to the parser.

    Args:
        commands: The parser's subparsers.
        recipe_folder: Returns where recipes lie.
        out: Writes a line of the result.
    """
    doctor = commands.add_parser(
        "doctor",
        help="check an installation",
        description="Checks catalog, warehouse, disk, pools, models, connections, release lists, versions and the "
        "plugin, in seconds. Exit code 1 where a finding is an error.",
    )
    doctor.add_argument("--json", action="store_true", help="one JSON object in place of lines")
    doctor.set_defaults(run=lambda parsed: _doctor(parsed, recipe_folder, out))


def _doctor(parsed: argparse.Namespace, recipe_folder: Callable[[], Path], out: Say) -> int:
    from corpusmill.doctor import examine

    findings = examine(recipe_folder())
    counts = {level: sum(f.level == level for f in findings) for level in MARKS}
    if parsed.json:
        out(json.dumps({**counts, "findings": [f.to_json() for f in findings]}))
    else:
        width = max((len(f.check) for f in findings), default=0)
        for finding in findings:
            out(f"{MARKS[finding.level]}  {finding.check:<{width}}  {finding.what}")
            if finding.todo:
                out(f"{'':9}{'':{width}}  -> {finding.todo}")
        out(f"{counts['ok']} ok, {counts['warning']} warnings, {counts['error']} errors")
    return 1 if counts["error"] else 0
