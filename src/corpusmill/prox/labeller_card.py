"""The model card of a line labeller, written from its ``config.json`` so that no figure is typed by hand."""

from collections.abc import Mapping
from typing import Any

_TEXTS = {"full_text": "full page text", "main_content": "main-content text"}


def model_card(config: Mapping[str, Any], note: str = "") -> str:
    """Returns the card as Markdown: what the model does, how it was made, from what, how good it is.

    Args:
        config: A complete ``config.json``.
        note: A paragraph on data and licence; left out where empty.
    """
    training, shape = config["training"], config["shape"]
    parts = [
        "# Line labeller",
        "Decides for each line of a web text whether it goes (menus, footers, teasers), and writes the decision as a "
        "ProX program.",
        "A document head decides keep or drop of whole texts." if config["document_threshold"] is not None else "",
        f"{_members(config)}: {shape['n_buckets']} hashed words of width {shape['word_width']}, 20 scalars a line, "
        f"{shape['n_layers']} layers of width {shape['width']} over at most {shape['max_lines']} lines; float16 "
        "weights in safetensors. Nothing in this folder is executed on loading.",
        "## How it was made",
        f"```\n{training['command']}\n```",
        f"Seed {training['seed']}, {training['steps']} steps, checkpoint of step {_best_steps(training)}, torch "
        f"{training['torch']}. Equal data, steps and seed give equal weights on one machine.",
        "Data (sha256): " + "; ".join(f"`{name}` {digest}" for name, digest in training["data_sha256"].items()) + ".",
        f"Main-content texts of {training['main_content_pages']} of the same pages were trained on as well."
        if training["main_content_pages"]
        else "",
        note,
        "## Quality",
        _quality(config),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _members(config: Mapping[str, Any]) -> str:
    n = config.get("members", 1)
    return "Network" if n == 1 else f"{n} networks whose logits are averaged, each"


def _best_steps(training: Mapping[str, Any]) -> str:
    return ", ".join(map(str, training["best_steps"]))


def _quality(config: Mapping[str, Any]) -> str:
    quality, shared = config["quality"], config["training"]["dev_domains_in_training"]
    lines = [
        "Dev pages, which also chose the checkpoint and the threshold; "
        + ("no domain of theirs was trained on." if not shared else f"{shared} of their domains were trained on."),
        "",
        "| text | pages | keep-F1 | char-F1 | remove-F1 | keep-F1 of removing nothing | char-F1 of removing nothing |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, label in _TEXTS.items():
        if name in quality:
            scores = quality[name]
            lines.append(_row(f"{label}, people's labels", scores, scores["remove_nothing"]))
            lines.append(_row(f"{label}, all labels", scores["all"], scores["remove_nothing"]["all"]))
    if (documents := quality.get("documents")) is not None:
        lines += [
            "",
            f"Documents, {documents['judged_documents']} judged by people, {documents['folds']}-fold cross-validation: "
            f"AUC {documents['auc']:.3f}; at the default threshold {config['document_threshold']} precision of drop "
            f"{documents['drop_precision']:.3f}, recall {documents['drop_recall']:.3f}. Of the dev pages' main-content "
            f"texts {documents['dev_articles_dropped']:.1%} are dropped, of 100-word beginnings "
            f"{documents['dev_beginnings_dropped']:.1%}, of their boilerplate alone "
            f"{documents['dev_boilerplate_dropped']:.1%}.",
        ]
    return "\n".join(lines)


def _row(label: str, scores: Mapping[str, Any], nothing: Mapping[str, Any]) -> str:
    figures = [scores["keep_f1"], scores["char_f1"], scores["remove_f1"], nothing["keep_f1"], nothing["char_f1"]]
    return f"| {label} | {scores['n_pages']} | " + " | ".join(f"{figure:.3f}" for figure in figures) + " |"
