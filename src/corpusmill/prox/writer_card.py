"""The model card of a program writer, written from its ``config.json`` so that no figure is typed by hand."""

from collections.abc import Mapping, Sequence
from typing import Any

_TEXTS = {"full_text": "full page text", "main_content": "main-content text"}


def writer_card(config: Mapping[str, Any], note: str = "") -> str:
    """Returns the card as Markdown: what the model does, how it was made, from what, how good it is.

    Args:
        config: A complete ``config.json``.
        note: A paragraph on data and licence; left out where empty.
    """
    training, shape = config["training"], config["shape"]
    lines = shape["lines"]
    parts = [
        "# Program writer",
        "Reads a window of lines of a web text and writes a ProX program, token by token, that removes what does not "
        "belong to the text (menus, footers, teasers).",
        f"Network: {shape['n_encoders']} encoders over at most {lines['max_lines']} lines ({lines['n_buckets']} hashed "
        f"words of width {lines['word_width']}, 20 scalars a line, {lines['n_layers']} layers of width "
        f"{lines['width']}), a causal decoder of {shape['n_layers']} layers over program tokens, a pointer from tokens "
        "to lines; float16 weights in safetensors. Nothing in this folder is executed on loading.",
        "## How it was made",
        f"```\n{training['command']}\n```",
        f"Seed {training['seed']}; steps of the encoders and, last, of the decoder: {_listed(training['steps'])}, "
        f"checkpoints of steps {_listed(training['best_steps'])}; torch {training['torch']}. Equal data, steps and "
        "seed give equal weights on one machine.",
        "Data (sha256): " + "; ".join(f"`{name}` {digest}" for name, digest in training["data_sha256"].items()) + ".",
        f"Main-content texts of {training['main_content_pages']} of the same pages were trained on as well."
        if training["main_content_pages"]
        else "",
        note,
        "## Quality",
        _quality(config),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _quality(config: Mapping[str, Any]) -> str:
    quality, shared = config["quality"], config["training"]["dev_domains_in_training"]
    lines = [
        "Dev pages, which also chose the checkpoint; "
        + ("no domain of theirs was trained on." if not shared else f"{shared} of their domains were trained on."),
        "",
        "| text | decoding | pages | keep-F1 | char-F1 | remove-F1 | valid programs | keep-F1 of removing nothing |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, label in _TEXTS.items():
        if name in quality:
            scores, nothing = quality[name], quality[name]["remove_nothing"]
            for decoding, result in (("by the grammar", scores), ("free", scores["free"])):
                lines.append(_row(f"{label}, people's labels | {decoding}", result, result["validity"], nothing))
                lines.append(_row(f"{label}, all | {decoding}", result["all"], result["validity"], nothing["all"]))
    return "\n".join(lines)


def _row(label: str, scores: Mapping[str, Any], validity: float, nothing: Mapping[str, Any]) -> str:
    figures = [scores["keep_f1"], scores["char_f1"], scores["remove_f1"], validity, nothing["keep_f1"]]
    return f"| {label} | {scores['n_pages']} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |"
