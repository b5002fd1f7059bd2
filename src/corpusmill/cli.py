"""The command ``corpusmill``: every stage and whole crawls on a laptop, without Airflow.

Progress goes to stderr; stdout holds the result alone, its last line a JSON object where a command documents one.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from corpusmill import __version__
from corpusmill.ablation_commands import add_ablation_command
from corpusmill.dedup_commands import add_dedup_commands
from corpusmill.doctor_command import add_doctor_command
from corpusmill.epoch_command import add_epoch_command
from corpusmill.errors import ConfigError, CorpusmillError
from corpusmill.failures import sorted_error
from corpusmill.reference_model_commands import add_reference_model_commands
from corpusmill.refiner_commands import add_refiner_commands
from corpusmill.settings_file import exact_text, read_settings

EXIT_FAILED = 1
EXIT_USAGE = 2


def main(arguments: list[str] | None = None) -> int:
    """Runs one command; returns 0 on success, 1 on a failure that the message explains, 2 on wrong usage."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    try:
        return int(parsed.run(parsed))
    except CorpusmillError as error:
        print(f"corpusmill: {error}", file=sys.stderr)
        return EXIT_USAGE if isinstance(error, ConfigError) else EXIT_FAILED
    except BrokenPipeError:
        return EXIT_FAILED
    except Exception as error:
        meant = sorted_error(error)  # a full disk, a lost database: what it means, in place of a traceback
        if meant is None and not isinstance(error, OSError):
            raise
        print(f"corpusmill: {meant or error}", file=sys.stderr)
        return EXIT_FAILED


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _out(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="corpusmill", description="Turns web crawls into pretraining corpora.")
    parser.add_argument("--version", action="version", version=f"corpusmill {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    refresh = commands.add_parser("refresh", help="one crawl through a recipe, to the published corpus")
    refresh.add_argument("recipe", metavar="RECIPE", help="recipe name (dags/recipes) or a YAML file")
    refresh.add_argument("crawl", metavar="CRAWL", help="crawl id, e.g. CC-MAIN-2024-10")
    refresh.add_argument("--source", metavar="BASE", help="folder or URL in Common Crawl's layout")
    refresh.add_argument("--dry-run", action="store_true", help="only say what would change, and what it would cost")
    refresh.set_defaults(run=_refresh)

    run = commands.add_parser("run", help="one stage on a local file")
    run.add_argument("stage", metavar="STAGE", help="ingest, clean, refine_documents, refine_chunks, pack, score")
    run.add_argument("--input", required=True, type=Path, metavar="F", help="WARC, WET, ARC, Parquet or JSON lines")
    run.add_argument("--output", required=True, type=Path, metavar="DIR", help="folder for kept, removed, quarantine")
    run.add_argument("--config", type=Path, metavar="F", help="YAML file with the stage's settings")
    run.set_defaults(run=_run_stage)

    execute = commands.add_parser("execute", help="one refining program on one text")
    execute.add_argument("--text", required=True, type=Path, metavar="F")
    execute.add_argument("--program", required=True, type=Path, metavar="F")
    execute.add_argument("--mode", choices=["strict", "compat"], default="strict")
    execute.set_defaults(run=_execute)

    add_refiner_commands(commands, _say, _out)
    add_reference_model_commands(commands, _say, _out)
    add_ablation_command(commands, _say, _out)
    add_dedup_commands(commands, _say, _out)
    add_epoch_command(commands, _say, _out)
    add_doctor_command(commands, recipe_folder, _out)

    explain = commands.add_parser("explain", help="everything about one document")
    explain.add_argument("doc_id", metavar="DOC_ID")
    explain.add_argument("--recipe", default="demo")
    explain.add_argument("--crawl")
    explain.set_defaults(run=_explain)

    files = commands.add_parser("files", help="the live Parquet files of a recipe's corpus, one a line")
    files.add_argument("recipe", metavar="RECIPE")
    files.add_argument("--sequences", action="store_true", help="those of the packed sequences beside the corpus")
    files.add_argument("--tag", help="a release tag instead of the newest corpus")
    files.set_defaults(run=_files)

    maintain = commands.add_parser("maintain", help="expire snapshots, compact, delete orphan files of a recipe")
    maintain.add_argument("recipe", metavar="RECIPE")
    maintain.add_argument("--days", type=float, default=30.0, metavar="N", help="age of what expires (30)")
    maintain.add_argument("--grace-hours", type=float, default=72.0, metavar="N", help="age of orphans deleted (72)")
    maintain.add_argument("--dry-run", action="store_true", help="only say what would be done")
    maintain.set_defaults(run=_maintain)

    init = commands.add_parser("init", help="create the lakehouse tables of recipes, once")
    init.add_argument("recipes", nargs="+", metavar="RECIPE")
    init.set_defaults(run=_init)
    return parser


def recipe_folder() -> Path:
    """Returns where recipes named without a path are looked for: ``CORPUSMILL_RECIPES``, else ``dags/recipes``."""
    import os

    return Path(os.environ.get("CORPUSMILL_RECIPES", "dags/recipes"))


def _recipe(name: str) -> Any:
    from corpusmill.recipe import load_recipe

    path = Path(name)
    return load_recipe(path if path.suffix in {".yaml", ".yml"} else recipe_folder() / f"{name}.yaml")


def _refresh(parsed: argparse.Namespace) -> int:
    from corpusmill.runner.open_lakehouse import open_lakehouse
    from corpusmill.runner.refresh import refresh
    from corpusmill.runner.show import print_examples, print_how_to_read, print_report

    recipe = _recipe(parsed.recipe)
    if parsed.dry_run:
        return _dry_run(recipe, parsed.crawl, parsed.source)
    report = refresh(recipe, parsed.crawl, parsed.source, _say)
    print_report(report, _say)
    print_examples(report["examples"], _say)
    print_how_to_read(open_lakehouse(), recipe.name, _say)
    summary = {
        "crawl": report["crawl"],
        "pages": next((s["documents_kept"] for s in report["funnel"] if s["stage"] == "ingest"), 0),
        **{key: report[key] for key in ("published", "quarantined", "snapshot", "tag")},
    }
    _out(json.dumps(summary))
    return 0 if report["published"] > 0 else EXIT_FAILED


def _dry_run(recipe: Any, crawl: str, source: str | None) -> int:
    from corpusmill.runner.dry_run import dry_run, forecast_lines
    from corpusmill.runner.open_lakehouse import open_lakehouse

    found = dry_run(open_lakehouse(), recipe, crawl, source, _say)
    for line in forecast_lines(found):
        _say(line)
    _out(json.dumps(found))
    return 0


def _run_stage(parsed: argparse.Namespace) -> int:
    from corpusmill.runner.local_files import run_on_files

    config = read_settings(parsed.config, "--config") if parsed.config else {}
    report = run_on_files(parsed.stage, parsed.input, parsed.output, config, _say)
    _out(json.dumps(report.to_json()))
    return 0


def _execute(parsed: argparse.Namespace) -> int:
    from corpusmill.prox.execute_once import execute_once

    text, program = (exact_text(path) for path in (parsed.text, parsed.program))
    _out(json.dumps(execute_once(text, program, parsed.mode), ensure_ascii=True))
    return 0


def _explain(parsed: argparse.Namespace) -> int:
    from corpusmill.runner.explain import explain
    from corpusmill.runner.open_lakehouse import open_lakehouse

    found = explain(open_lakehouse(), parsed.recipe, parsed.doc_id, parsed.crawl)
    _out(json.dumps(found, indent=2, default=str, ensure_ascii=False))
    if not found["documents"]:
        crawl = "" if parsed.crawl is None else f" of crawl={parsed.crawl!r}"
        _say(f"corpusmill: doc_id={parsed.doc_id!r} is not in table {parsed.recipe}.documents{crawl}; check the id")
        return EXIT_FAILED
    return 0


def _files(parsed: argparse.Namespace) -> int:
    from corpusmill.runner.open_lakehouse import open_lakehouse

    name = "corpus_sequences" if parsed.sequences else "corpus"
    table = open_lakehouse().table(f"{parsed.recipe}.{name}")
    for file in table.data_files(None, parsed.tag):
        _out(file.removeprefix("file://"))
    return 0


def _maintain(parsed: argparse.Namespace) -> int:
    from corpusmill.runner.maintain import maintain
    from corpusmill.runner.open_lakehouse import open_lakehouse

    ages = {"days": parsed.days, "grace_hours": parsed.grace_hours}
    _out(json.dumps(maintain(open_lakehouse(), parsed.recipe, **ages, dry_run=parsed.dry_run, log=_say)))
    return 0


def _init(parsed: argparse.Namespace) -> int:
    from corpusmill.runner.chain import initialise

    initialise([_recipe(name).name for name in parsed.recipes])
    return 0


if __name__ == "__main__":
    sys.exit(main())
