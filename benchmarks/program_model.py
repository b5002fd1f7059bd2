"""Pretrains a base on the text there is, fine-tunes it to write programs in the public prompt format, and measures it.

For a machine with a GPU (bfloat16); it runs on a CPU too, for hours. Both steps resume after a kill when the same
command is given again. Pages of the dev file's domains are left out of the pretraining text.

    python benchmarks/program_model.py --out runs/model --preset 125m

Progress goes to stderr, one JSON object to the last line of stdout: scores on the dev pages, with and without the
grammar, and what pretraining and fine-tuning took.
"""

import argparse
import gzip
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from corpusmill.prox.base_pretraining import pretrain_base
from corpusmill.prox.program_model_base import SHAPES
from corpusmill.prox.program_model_folder import chunk_config
from corpusmill.prox.program_model_training import train_program_model
from corpusmill.prox.refiner_evaluation import evaluate

DATA = Path(os.environ.get("CORPUSMILL_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
TEXT = ("refine/train.jsonl.gz", "text/*.gz", "web_jsonl/*.jsonl.gz", "crawls/crawl-data/*/segments/*/wet/*.wet.gz")
"""Pretraining text, patterns under the data folder."""


def say(line: str) -> None:
    """Prints progress."""
    print(time.strftime("%H:%M:%S"), line, file=sys.stderr, flush=True)


def documents(data: Path, left_out: set[str]) -> Iterator[str]:
    """Yields each text of the data folder once; pages of the domains left out do not appear."""
    seen: set[int] = set()
    for pattern in TEXT:
        for path in sorted(data.glob(pattern)):
            for domain, text in _texts(path):
                known = any(domain == one or domain.endswith("." + one) for one in left_out)
                if text.strip() and not known and hash(text) not in seen:
                    seen.add(hash(text))
                    yield text


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """Yields (host, text) of each document of a file."""
    if path.name.endswith(".wet.gz"):
        yield from _wet(path)
        return
    with gzip.open(path, "rt", encoding="utf-8") as file:
        if ".jsonl" not in path.name:
            yield "", file.read()
            return
        for line in file:
            row: dict[str, Any] = json.loads(line)
            yield str(row.get("domain", "")), row["text"] if "text" in row else "\n".join(row["lines"])


def _wet(path: Path) -> Iterator[tuple[str, str]]:
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    with path.open("rb") as file:
        for record in ArchiveIterator(file, record_types=WarcRecordType.conversion):
            host = urlsplit(record.headers.get("WARC-Target-URI", "")).hostname or ""
            yield host, record.reader.read().decode("utf-8", "replace")


def main() -> None:
    """Runs both steps and prints the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with refine/, text/, web_jsonl/ and crawls/")
    parser.add_argument("--out", type=Path, required=True, help="folder for base/ and model/")
    parser.add_argument("--preset", choices=sorted(SHAPES), default="125m")
    parser.add_argument("--pretrain-epochs", type=float, default=10.0)
    parser.add_argument("--pretrain-batch", type=int, default=16, help="sequences of 2,048 tokens a step")
    parser.add_argument("--vocabulary", type=int, default=16_384)
    parser.add_argument("--minutes", type=float, default=10.0, help="fine-tuning, without evaluations")
    parser.add_argument(
        "--learning-rate", type=float, default=2e-4, help="fine-tuning; a small base wants more than 1e-5"
    )
    parser.add_argument("--batch", type=int, default=16, help="windows a step of fine-tuning")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    train, dev = given.data / "refine" / "train.jsonl.gz", given.data / "refine" / "dev.jsonl.gz"
    with gzip.open(dev, "rt", encoding="utf-8") as file:
        left_out = {json.loads(line)["domain"] for line in file}
    base, model = given.out / "base", given.out / "model"
    started = time.monotonic()
    if not base.is_dir():
        pretrain_base(
            documents(given.data, left_out),
            base,
            preset=f"new:{given.preset}",
            epochs=given.pretrain_epochs,
            batch_size=given.pretrain_batch,
            n_vocab=given.vocabulary,
            seed=given.seed,
            progress=say,
        )
    pretrained = time.monotonic()
    settings = {
        "learning_rate": given.learning_rate,
        "batch_examples": given.batch,
        "keep_share": None,
        "weight_decay": 0.1,
        "batch_tokens": 65_536,
    }
    train_program_model(
        train, dev, model, base=str(base), minutes=given.minutes, seed=given.seed, settings=settings, progress=say
    )
    finished = time.monotonic()
    scores = {
        name: evaluate(chunk_config(model, constrained=constrained), dev)
        for name, constrained in (("free", False), ("grammar", True))
    }
    times = {"pretraining_s": round(pretrained - started), "fine_tuning_s": round(finished - pretrained)}
    print(json.dumps({"preset": given.preset, **times, **scores}))


if __name__ == "__main__":
    main()
