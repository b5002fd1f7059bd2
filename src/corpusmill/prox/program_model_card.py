"""The model card of a program-writing model, written from its record so that no figure is typed by hand."""

from collections.abc import Mapping
from typing import Any

_PURPOSE = {
    "document": "Reads a web document and writes `keep_doc()` or `drop_doc()`.",
    "chunk": "Reads numbered lines of a web document and writes `remove_lines(...)`, `normalize(...)` or "
    "`keep_chunk()`.",
}


def program_model_card(record: Mapping[str, Any]) -> str:
    """Returns the card as Markdown: what the model does, how it is run, how it was made, how good it is.

    Args:
        record: A complete ``corpusmill.json``.
    """
    training = record["training"]
    examples, epoch = training["examples"], training["examples"]["epoch"]
    settings = ", ".join(f"`{name}: {value}`" for name, value in record["inference"].items())
    parts = [
        "# Program-writing refiner",
        f"{_PURPOSE[record['task']]} A ProX refiner (arXiv 2409.17115) in the public prompt format.",
        f"Backend `transformers`, {settings}; `corpusmill.json` says so to the tools of this project.",
        "## How it was made",
        f"```\n{training['command']}\n```",
        f"Base `{training['base']}`, {training['n_parameters']:,} parameters; {training['steps']} steps, checkpoint of "
        f"step {training['best_step']}, seed {training['seed']}, about {training['flops']:.2e} operations; torch "
        f"{training['torch']}, transformers {training['transformers']}, {training['weights']}.",
        f"Examples: {examples['n_keep']} that keep, {examples['n_edit']} that edit or drop; an epoch had "
        f"{epoch['n_keep']} and {epoch['n_edit']}. Left out: {examples['skipped'] or 'none'}.",
        "Data (sha256): " + "; ".join(f"{name} {digest}" for name, digest in training["data_sha256"].items()) + ".",
        "## Quality",
        "On dev examples, which also chose the checkpoint.",
        "\n".join(_rows(record["quality"])),
    ]
    return "\n\n".join(parts) + "\n"


def _rows(quality: Mapping[str, Any]) -> list[str]:
    rows = ["| measured on | figure | value |", "|---|---|---|"]
    for place, measures in quality.items():
        if isinstance(measures, Mapping):
            rows += [
                f"| {place} | {name} | {value:.4g} |"
                for name, value in measures.items()
                if isinstance(value, int | float)
            ]
    return rows
