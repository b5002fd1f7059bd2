"""The child process for model work: ``python -m corpusmill.worker job.json`` (see `corpusmill.runner.child`)."""

import importlib
import json
import logging
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from corpusmill.failures import sorted_error


def main(arguments: list[str]) -> int:
    """Runs the job that a file describes and writes its result or error beside it; returns the exit code."""
    if len(arguments) != 1:
        print("usage: python -m corpusmill.worker JOB.json", file=sys.stderr)
        return 2
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
    job = json.loads(Path(arguments[0]).read_text())
    module, _, name = job["function"].partition(":")
    try:
        outcome: dict[str, Any] = {"result": getattr(importlib.import_module(module), name)(**job["arguments"])}
    except Exception as error:  # noqa: BLE001 - whatever it is, the parent must hear of it
        meant = sorted_error(error) or error
        outcome = {
            "error": {
                "module": type(meant).__module__,
                "class": type(meant).__name__,
                "message": str(meant),
                "traceback": traceback.format_exc(),
            }
        }
    scratch = Path(f"{job['result']}.tmp")
    scratch.write_text(json.dumps(outcome))
    os.replace(scratch, job["result"])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
