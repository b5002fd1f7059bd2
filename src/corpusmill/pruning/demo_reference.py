"""Builds the small reference model that ships with the package, and measures it on text it has not seen.

Command: ``python -m corpusmill.pruning.demo_reference SHARED_DATA OUT``. About 400 CPU seconds on one core.
"""

import gzip
import hashlib
import json
import logging
import random
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from corpusmill.errors import PermanentDataError
from corpusmill.modeling.load import model_sha256
from corpusmill.modeling.train_lm import TrainingSettings
from corpusmill.pruning.reference_models import ReferenceModel, train_reference_model

log = logging.getLogger(__name__)

BOOKS = "text/clean_books_speeches.jsonl.gz"
WIKITEXT = ("text/wikitext-2.valid.txt.gz", "text/wikitext-2.test.txt.gz")
HELD_OUT_OF = 12
"""One document in this many is held out, by the hash of its id."""
SETTINGS = TrainingSettings(steps=0, batch_size=16, learning_rate=4e-3, warmup_steps=30, checkpoint_every=100)


@dataclass(frozen=True)
class Measured:
    """What the model does on held-out documents.

    Attributes:
        bits_per_byte: Over all held-out documents.
        n_sentences: Sentences compared with their own words in random order.
        share_ordered: Share of them whose shuffled words have more bits per byte, in [0, 1].
        mean_gap: Mean of that difference, bits per byte.
    """

    bits_per_byte: float
    n_sentences: int
    share_ordered: float
    mean_gap: float


def build_demo_reference_model(shared_data: Path, out: Path, steps: int = 600, seed: int = 0) -> ReferenceModel:
    """Returns the trained demo reference model, written to ``out`` with its card.

    Args:
        shared_data: Folder that holds ``text/`` (see the card for what is in it).
        out: Model folder to write.
        steps: Optimiser steps.
        seed: Of initialisation and data order.

    Raises:
        PermanentDataError: The texts are not there.
    """
    training, held_out = clean_documents(shared_data)
    log.info("%d documents to train on, %d held out", len(training), len(held_out))

    def progress(step: int, loss: float) -> None:
        if step % 50 == 0:
            log.info("step %d of %d, loss %.3f", step, steps, loss)

    texts = list(training.values())
    result = train_reference_model(
        texts,
        out,
        preset="tiny",
        steps=steps,
        seed=seed,
        validation=list(held_out.values()),
        settings=SETTINGS,
        dtype="float16",
        progress=progress,
    )
    measured = measure(out, list(held_out.values()), seed)
    (out / "README.md").write_text(_card(result, measured, steps, seed, len(texts), len(held_out)), encoding="utf-8")
    return result


def clean_documents(shared_data: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Returns training and held-out documents by id; the split depends on the ids alone.

    Raises:
        PermanentDataError: A file is missing.
    """
    if missing := [name for name in (BOOKS, *WIKITEXT) if not (shared_data / name).is_file()]:
        raise PermanentDataError(f"{str(shared_data)!r} lacks {missing}; give the folder of the shared data")
    documents: dict[str, str] = {}
    with gzip.open(shared_data / BOOKS, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            documents[record["id"]] = record["text"]
    for name in WIKITEXT:
        with gzip.open(shared_data / name, "rt", encoding="utf-8") as stream:
            documents.update(wikitext_articles(stream.read()))
    held_out = {k: v for k, v in documents.items() if _bucket(k) == 0}
    return {k: v for k, v in documents.items() if k not in held_out}, held_out


def _bucket(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") % HELD_OUT_OF


def wikitext_articles(text: str) -> dict[str, str]:
    """Returns WikiText's articles as ordinary text; sentences with an unknown word are left out."""
    articles: dict[str, list[str]] = {}
    current: list[str] = []
    for raw in text.splitlines():
        line = raw.strip()
        if title := re.fullmatch(r"= ([^=].*[^=]) =", line):
            current = articles.setdefault(f"wikitext/{title[1]}", [])
        elif line and not line.startswith("="):
            whole = [s for s in re.split(r"(?<= [.!?]) ", line) if "<unk>" not in s and s.endswith((" .", " !", " ?"))]
            if whole:
                current.append(detokenise(" ".join(whole)))
    return {name: "\n".join(paragraphs) for name, paragraphs in articles.items() if paragraphs}


def detokenise(text: str) -> str:
    """Returns WikiText's spaced tokens as ordinary typography."""
    text = re.sub(r" @([-,.])@ ", r"\1", text)
    text = re.sub(r'" (.*?) "', r'"\1"', text)
    text = re.sub(r" ([,.;:!?)\]])", r"\1", text)
    text = re.sub(r"([(\[]) ", r"\1", text)
    return re.sub(r" ('s|'t|n't|'re|'ve|'ll|'d|'m)\b", r"\1", text)


def sentences(text: str, least_words: int = 8) -> list[str]:
    """Returns the sentences of a text that have at least so many words."""
    found = re.split(r"(?<=[.!?])\s+", " ".join(text.split()))
    return [s for s in found if len(s.split()) >= least_words]


def shuffled_words(text: str, rng: random.Random) -> str:
    """Returns the words of a text in random order."""
    words = text.split()
    rng.shuffle(words)
    return " ".join(words)


def measure(folder: Path, documents: list[str], seed: int = 0, n_sentences: int = 300) -> Measured:
    """Returns bits per byte on the documents, and how often shuffled words score worse than the sentence."""
    import pyarrow as pa

    from corpusmill.pruning.config import ScoringConfig
    from corpusmill.pruning.perplexity import bits_per_byte
    from corpusmill.pruning.scoring import ScoreStage

    rng = random.Random(seed)
    pool = [s for text in documents for s in sentences(text)]
    chosen = rng.sample(pool, min(n_sentences, len(pool)))
    texts = [*documents, *chosen, *(shuffled_words(s, rng) for s in chosen)]
    stage = ScoreStage(ScoringConfig(model=str(folder.resolve()), device="cpu"))
    names = {name: [name] * len(texts) for name in ("crawl", "warc_file", "language")}
    batch = pa.table({**names, "doc_id": [str(i) for i in range(len(texts))], "text": texts})
    rows = stage.process(batch).kept
    nll, size = (rows.column(name).to_numpy() for name in ("nll_sum", "n_bytes"))
    n, m = len(documents), len(chosen)
    gaps = bits_per_byte(nll[n + m :], size[n + m :]) - bits_per_byte(nll[n : n + m], size[n : n + m])
    overall = bits_per_byte(nll[:n].sum(), size[:n].sum())
    return Measured(float(overall), m, float((gaps > 0).mean()), float(gaps.mean()))


def _card(result: ReferenceModel, measured: Measured, steps: int, seed: int, n_train: int, n_held: int) -> str:
    nll = result.validation_nll
    assert nll is not None, "the demo model is always measured"
    return f"""# Demo reference model

A tiny Llama-shaped decoder ({result.n_parameters:,} parameters: width 128, 4 layers, 256 positions, byte-level BPE with
2,048 ids) that scores the demo crawl. It is there to show the machinery, not to judge real corpora.

Made by `python -m corpusmill.pruning.demo_reference SHARED_DATA OUT --steps {steps} --seed {seed}` (our own training
code; weights stored in float16, loaded as float32).
sha256 over the folder's files without this one: `{model_sha256(result.folder)}`.

Data: {n_train} documents, {result.n_tokens:,} tokens: Pride and Prejudice, On the Origin of Species, Sherlock Holmes,
Frankenstein (Standard Ebooks, public domain, CC0-1.0), inaugural and State of the Union addresses (NLTK data, public
domain), WikiText-2 validation and test articles (Wikipedia's contributors, CC BY-SA 3.0; sentences with unknown words
left out). {n_held} further documents were held out by the hash of their id. The weights hold statistics of these texts;
whoever passes them on should name Wikipedia's contributors and CC BY-SA 3.0.

Measured on the held-out documents:

| what | value |
|---|---|
| training loss, last 50 steps | {sum(result.losses[-50:]) / len(result.losses[-50:]):.3f} nats per token |
| mean NLL in packed sequences | {nll:.3f} nats per token (perplexity {2.718281828459045**nll:.1f}) |
| bits per byte, document by document | {measured.bits_per_byte:.3f} |
| sentences that score lower than their own words shuffled | {measured.share_ordered:.1%} of {measured.n_sentences} |
| mean gap to the shuffled words | {measured.mean_gap:.3f} bits per byte |
"""


def main(arguments: list[str] | None = None) -> int:
    """Returns 0 after building the model; the command line of this module."""
    import argparse

    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("shared_data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)  # equal sums on machines with any number of cores
    build_demo_reference_model(given.shared_data, given.out, given.steps, given.seed)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
