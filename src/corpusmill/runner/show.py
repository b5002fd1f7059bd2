"""Prints a run's report for a person: the funnel, why documents were lost, examples, and how to read the corpus."""

import difflib
import shutil
from collections.abc import Callable
from typing import Any

from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.epochs import current_epoch
from corpusmill.runner.demo_quality import quality_sentences
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.plan import load_plan, plan_uri
from corpusmill.runner.records import read_record
from corpusmill.runner.report import report_uri
from corpusmill.runner.selection_summary import selection_sentences

NAMES = {
    "ingest": "pages with text",
    "clean": "after the rules",
    "deduplicate": "after deduplication",
    "refine_documents": "after document programs",
    "refine_chunks": "after chunk programs",
    "pack": "in packed sequences",
    "select": "after selection",
    "assemble_sequences": "published in sequences",
    "assemble": "published",
}
"""What the documents that leave a stage are called in the funnel; stages that lose nothing are left out."""
REASONS_SHOWN = 3
"""Reasons named per stage; the rest is summed."""


def print_report(report: dict[str, Any], write: Callable[[str], None]) -> None:
    """Writes the funnel of one run with the reasons of each loss, and the outcome of validation."""
    write(f"\n{report['crawl']}  recipe {report['recipe']}  state {report['state']}")
    if report["message"]:
        write(f"  {report['message']}")
    write(f"  {'':28}{'documents':>10} {'characters':>13}   lost here, and why")
    for step in report["funnel"]:
        if step["stage"] not in NAMES:
            continue
        if step.get("unit") == "sequence":
            write(_sequence_line(step))
            continue
        kept, chars = step["documents_kept"], step["characters_kept"]
        write(f"  {NAMES[step['stage']]:28}{kept:>10,} {_count(chars):>13}   {_reasons(step)}".rstrip())
        if step["stage"] == "pack":
            write(_packing_line(step["metrics"]))
    if report["quarantined"]:
        write(
            f"  {report['quarantined']} inputs could not be processed; each is a row of ops.quarantine with its reason"
        )
    _print_verdicts(report, write)


def _packing_line(metrics: dict[str, float]) -> str:
    """Returns what packing made, and what it dropped at the end of each file."""
    n, tokens, rest = (int(metrics.get(k, 0)) for k in ("sequences", "sequence_tokens", "remainder_tokens"))
    share = rest / (tokens + rest) if rest else 0.0
    return f"    packed: {n:,} sequences of {tokens:,} tokens; {rest:,} tokens ({share:.1%}) fill none and are dropped"


def _sequence_line(step: dict[str, Any]) -> str:
    tokens = int(step["metrics"].get("sequence_tokens", 0))
    counted = f"{step['documents_kept']:,} sequences" + (f" of {tokens:,} tokens" if tokens else "")
    return f"    {NAMES[step['stage']]}: {counted}   {_reasons(step)}".rstrip()


def _print_verdicts(report: dict[str, Any], write: Callable[[str], None]) -> None:
    """Writes retractions, the refiner's quality where it is known, and the outcome of validation."""
    for crawl, n in report["retracted"].items():
        if n:
            write(f"  {n} documents of the newer crawl {crawl} were retracted: their older copy is published now")
    if report["refiner_quality"]:
        write("  the small models, measured on this crawl:")
        for line in quality_sentences(report["refiner_quality"]):
            write(f"    {line}")
    for line in selection_sentences(report):
        write(f"  {line}")
    validation = report["validation"]
    if validation:
        verdict = "passed" if validation["passed"] else "FAILED"
        n_warnings = len(validation["warnings"])
        warnings = f"{n_warnings} warning{'' if n_warnings == 1 else 's'}"
        write(f"  validation: {verdict}, {validation['n_checks']} checks, {warnings}")
        for sentence in [*validation["failed"], *validation["warnings"]]:
            write(f"    {sentence}")


def _count(n: int) -> str:
    return f"{n:,}" if n else ""


def _reasons(step: dict[str, Any]) -> str:
    lost = sorted({**step["removed"], **step["quarantined"]}.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{n} {reason}" for reason, n in lost[:REASONS_SHOWN]]
    if rest := sum(n for _, n in lost[REASONS_SHOWN:]):
        shown.append(f"{rest} for other reasons")
    return ", ".join(shown)


def print_examples(examples: list[dict[str, Any]], write: Callable[[str], None], n: int = 3) -> None:
    """Writes before / program / after of up to ``n`` documents as a marked-up text: removed lines begin with ``-``."""
    width = max(60, min(110, shutil.get_terminal_size((100, 24)).columns)) - 6
    for i, example in enumerate(examples[:n], 1):
        write(f"\n  example {i}: {example['url']}")
        write("    program")
        for line in example["program"].splitlines()[:8]:
            write(f"      {line[:width]}")
        write("    before -> after (- removed, + new, the rest is unchanged)")
        for line in _difference(example["before"], example["after"]):
            write(f"      {line[:width]}")


def _difference(before: str, after: str, limit: int = 16) -> list[str]:
    """Returns changed lines with one line around them; longer unchanged stretches become ``...``."""
    old, new = ([line for line in text.split("\n") if line.strip()] for text in (before, after))
    lines = list(difflib.unified_diff(old, new, n=1, lineterm=""))[2:]
    shown = ["..." if line.startswith("@@") else f"{line[0]} {line[1:]}" for line in lines]
    shown = shown[1:] if shown[:1] == ["..."] else shown
    return [*shown[:limit], "..."] if len(shown) > limit else shown


def print_how_to_read(lake: Lakehouse, recipe: str, write: Callable[[str], None]) -> None:
    """Writes where the corpus is and how pandas, DuckDB and datasets read it."""
    files = lake.table(f"{recipe}.corpus").data_files(None)
    folder = files[0].split("/data/")[0] + "/data" if files else "(no files)"
    plain = folder.removeprefix("file://")
    write(f"\nThe corpus is the Iceberg table {recipe}.corpus: {len(files)} Parquet files below")
    write(f"  {folder}")
    write("Its live files are listed by `corpusmill files " + recipe + "`. Read it:")
    write("  pandas    import pandas as pd, subprocess")
    write(f"            files = subprocess.check_output(['corpusmill', 'files', '{recipe}'], text=True).split()")
    write("            df = pd.concat(pd.read_parquet(f) for f in files)")
    write('  DuckDB    duckdb.sql(f"select language, count(*) from read_parquet({files}) group by all")')
    write("  datasets  load_dataset('parquet', data_files=files, split='train', streaming=True)")
    write(f"The folder {plain} also holds files of earlier snapshots: take the list, not the folder.")


def stored_report(lake: Lakehouse, plan: str) -> dict[str, Any]:
    """Returns the report that a run stored, by its plan's URI."""
    report: dict[str, Any] = read_record(lake, report_uri(lake, load_plan(lake, plan)))
    return report


def print_demo_report(crawls: list[str], recipe: str = "demo") -> bool:
    """Prints the newest run's report of each crawl and how to read the corpus; returns whether all were published.

    Args:
        crawls: Crawl ids, in the order to show.
        recipe: Recipe name.
    """
    lake = open_lakehouse()
    examples: list[dict[str, Any]] = []
    n_published = 0
    for crawl in crawls:
        epoch, _ = current_epoch(lake, recipe, crawl)
        report = stored_report(lake, plan_uri(lake, recipe, crawl, epoch))
        print_report(report, print)
        examples += report["examples"][:2]
        n_published += report["published"] > 0
    print_examples(examples, print)
    print_how_to_read(lake, recipe, print)
    return n_published == len(crawls)
