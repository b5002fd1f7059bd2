"""``python -m corpusmill_operators.local demo|up|init``: what ``make demo`` and ``make up`` call."""

import argparse
import sys
import time
from pathlib import Path

from corpusmill.errors import CorpusmillError
from corpusmill_operators.local.api import AirflowApi
from corpusmill_operators.local.demo import READY_SECONDS, run_demo
from corpusmill_operators.local.initialise import initialise
from corpusmill_operators.local.processes import (
    COMPONENTS,
    AirflowProcesses,
    adopt_orphans,
    end_descendants,
    end_on_signals,
    only_one,
)
from corpusmill_operators.local.settings import LocalSettings, local_settings

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def main(arguments: list[str]) -> int:
    """Runs one command and returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m corpusmill_operators.local", description=__doc__)
    parser.add_argument("command", choices=["demo", "up", "init"])
    parser.add_argument("--project", type=Path, default=Path.cwd(), help="folder with dags/ and plugins/")
    given = parser.parse_args(arguments)
    end_on_signals()
    adopt_orphans()
    try:
        settings = local_settings(given.project, fixed_port=given.command == "up")
        if given.command == "demo":
            return run_demo(settings, say)
        if given.command == "up":
            return up(settings)
        initialise(settings, say)
    except KeyboardInterrupt:
        say("interrupted; all processes are stopped")
        return INTERRUPTED
    except CorpusmillError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    finally:
        end_descendants()
    return 0


def up(settings: LocalSettings) -> int:
    """Runs Airflow in the foreground on the same state as the demo, until Ctrl-C."""
    with only_one(settings):
        initialise(settings, say)
        with AirflowProcesses(settings, list(COMPONENTS)) as processes:
            AirflowApi(processes).wait_until_ready(READY_SECONDS)
            say(f"Airflow is ready: {settings.base_url} (no login, this machine only); Ctrl-C ends it")
            while True:
                processes.check()
                time.sleep(1.0)


def say(line: str) -> None:
    """Prints a line at once, also into a pipe."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
