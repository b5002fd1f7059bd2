"""Runs one crawl through a recipe in one process: what ``corpusmill refresh`` does, in the order of the DAG."""

import logging
import os
import time
from collections.abc import Callable
from typing import Any

from corpusmill.errors import CorpusmillError
from corpusmill.recipe import Recipe
from corpusmill.runner import chain
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.show import stored_report

log = logging.getLogger(__name__)

OPTIONAL = ("refine_documents", "refine_chunks", "score", "select")
"""Stages that a recipe may leave out; their entry in the recipe has their name."""
NOTHING = "nothing to do"
"""What is said of a stage that found its result there, or whose run is published already."""


def refresh(recipe: Recipe, crawl: str, source: str | None, log: Callable[[str], None]) -> dict[str, Any]:
    """Takes a crawl from its files to the published corpus; an empty home is initialised first.

    Returns:
        The run's report (see `runner.report`).

    Raises:
        CorpusmillError: Planning failed; or a stage failed, then the run's report with the message is stored first.
    """
    chain.initialise([recipe.name])
    run_id = f"refresh__{crawl}__{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}__{os.getpid()}"
    planned = chain.plan(recipe.model_dump(mode="json"), crawl, run_id, source)
    uri, shards = planned["plan"], planned["shards"]
    if planned["already_published"]:
        log(f"{crawl} is published already with the same inputs and settings: nothing to do")
    try:
        _stages(uri, shards, log, recipe)
    except BaseException as error:  # also an interruption: the run's row says how it ended
        _report_failure(uri, error)
        raise
    chain.report(uri, "success")
    return stored_report(open_lakehouse(), uri)


def _report_failure(uri: str, error: BaseException) -> None:
    message = str(error) if isinstance(error, CorpusmillError) else f"{type(error).__name__}: {error}"
    try:
        chain.report(uri, "failed", message)
    except Exception as second:  # noqa: BLE001 - the first error is the one to see
        log.warning("the run's report could not be stored either: %s", second)


def _stages(uri: str, shards: list[str], log: Callable[[str], None], recipe: Recipe) -> None:
    def mapped(stage: str) -> None:
        for shard in shards:
            chain.run_shard(uri, stage, shard, log)

    def say(stage: str, report: dict[str, Any], unit: str = "documents") -> None:
        if stage in OPTIONAL and getattr(recipe, stage) is None:
            log(f"{stage}: not in the recipe")
        elif report.get("skipped"):
            log(f"{stage}: {NOTHING}")
        else:
            kept = f"{report['documents_in']} {unit} in, {report['documents_kept']} kept"
            log(f"{stage}: {kept}, {report['seconds']:.1f} s")

    mapped("ingest")
    say("ingest", chain.commit(uri, "ingest"))
    mapped("clean")
    say("clean", chain.commit(uri, "clean"))
    say("deduplicate", chain.deduplicate(uri))
    mapped("refine_documents")
    say("refine_documents", chain.commit(uri, "refine_documents"))
    mapped("refine_chunks")
    say("refine_chunks", chain.commit(uri, "refine_chunks"))
    unit = "sequences" if recipe.packs_sequences else "documents"
    if recipe.packs_sequences:
        mapped("pack")
        say("pack", chain.commit(uri, "pack"))
    mapped("score")
    say("score", chain.commit(uri, "score"), unit)
    say("select", chain.select(uri), unit)
    mapped("assemble")
    say("assemble", chain.commit(uri, "assemble"))
    _say_validated(log, chain.validate(uri))
    published = chain.publish(uri)
    also = f" and {published['sequences']} sequences" if recipe.packs_sequences else ""
    log(f"publish: {published['published']} documents{also}, snapshot {published['snapshot']}, tag {published['tag']}")


def _say_validated(log: Callable[[str], None], outcome: dict[str, Any]) -> None:
    checked = f"{outcome['n_checks']} checks, {len(outcome['warnings'])} warnings" if "n_checks" in outcome else NOTHING
    log(f"validate: {checked}")
    for warning in outcome["warnings"]:
        log(f"  warning: {warning}")
