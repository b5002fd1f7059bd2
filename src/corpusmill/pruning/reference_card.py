"""The card of a reference model: what it was trained on, how, what it reaches, and which pools it may score."""

import math
from collections.abc import Mapping
from typing import Any

RECORD = "training.json"
"""File of facts and loss curve that lies in every model folder beside the card."""
_MAY = {
    "all": "It saw all of its corpus but the held-out documents: it gives no perplexity of a pool taken from there.",
    "reserved": "It saw the reserved part alone: leave that part out of a pool that it scores for perplexity.",
    "pool": "It saw the pool itself: use it for memorization, not for perplexity.",
}


def card_text(name: str, record: Mapping[str, Any], data: Mapping[str, Any], *, description: str = "") -> str:
    """Returns the card as Markdown.

    Args:
        name: The model's name.
        record: Facts of ``training.json``.
        data: Facts of the training data, as they stand in ``ops.models``.
        description: Paragraph of the recipe.
    """
    shape, settings, nll = record["shape"], record["settings"], record["validation_nll"]
    rows = [
        ("parameters", f"{record['n_parameters']:,} ({record['n_without_embeddings']:,} without embedding tables)"),
        ("shape", ", ".join(f"{k} {v}" for k, v in shape.items() if v is not None)),
        ("tokenizer", f"{record['n_vocab']:,} ids, sha256 `{record['tokenizer_sha256'][:16]}`"),
        ("trained on", f"{record['n_tokens']:,} tokens of {data['documents']:,} documents: {corpus_words(data)}"),
        ("purpose", f"{data['purpose']}. {_MAY[data['part']]}"),
        ("seed, step", f"{settings['seed']}, {record['step']} of {settings['steps']} ({record['epochs']:.1%} of D)"),
        (
            "optimiser",
            f"AdamW, {settings['batch_size']} sequences a step, rate {settings['learning_rate']:g} "
            f"({settings['schedule']}, {settings['warmup_steps']} warm-up steps), weight decay "
            f"{settings['weight_decay']:g}",
        ),
        ("training cost", f"{record['flops']:.3e} operations (6 N D)"),
        ("held-out text", "none" if nll is None else f"{nll:.4f} nats per token, perplexity {math.exp(nll):.2f}"),
    ]
    if record.get("bits_per_byte") is not None:
        rows.append(("held-out bits per byte", f"{record['bits_per_byte']:.4f}"))
    table = "\n".join(f"| {key} | {value} |" for key, value in rows)
    paragraph = f"{description.strip()}\n\n" if description.strip() else ""
    return (
        f"# Reference model {name}\n\n{paragraph}| what | value |\n|---|---|\n{table}\n\n"
        "Its weights hold statistics of the texts it was trained on: the licences of those texts say how it may be "
        "passed on. The loss curve is in `training.json`.\n"
    )


def corpus_words(data: Mapping[str, Any]) -> str:
    """Returns what a model was trained on in words."""
    if data.get("table"):
        words = f"table {data['table']}, crawls {', '.join(data['crawls'])}, snapshot {data['snapshot']}"
    else:
        words = "files " + ", ".join(sorted(data.get("files") or {}))
    split = data.get("split")
    return words + (f"; {data['part']} part of a split of {split['share']}, seed {split['seed']}" if split else "")
