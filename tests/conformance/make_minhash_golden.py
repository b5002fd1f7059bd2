"""Writes tests/golden/minhash: digests of datatrove's signatures of the shared documents and fuzz texts.

    .venv/bin/python tests/conformance/make_minhash_golden.py

Needs the shared data and the peers' environment (benchmarks/peers.txt); about 5 CPU minutes.
"""

import gzip
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
GOLDEN = REPOSITORY / "tests" / "golden" / "minhash" / "datatrove_0_10_1.jsonl.gz"

BOUNDARY_TEXTS = (
    "",
    " \n\t ",
    "word",
    "one two three four",
    "one two three four five",
    "ONE, two; three. Four\u2026 five!",
    "\u0663\u0664\u066b\u0665 12.5.6 1,2,3 7. .8 \uff11\uff12 \U0001d7d8\U0001d7d9 \U00010d40\U00010d41 \U00011f50 x",
    "a \u0301 b \u0300\u0301 c d\u0301e\u0323\u0302 \u00c5ngstr\u00f6m \u212b \u1e69 f g",
    "\u03a3\u0391\u03a3 \u039f\u0394\u039f\u03a3. \u03a3 \u03a3\u0301 \u0130stanbul \u00df\u1e9e \ufb01 \u00bd k\u212a",
    "\ud55c\uad6d\uc5b4 \ud14d\uc2a4\ud2b8 \uc785\ub2c8\ub2e4 \uadf8\ub9ac\uace0 \ub610 \ud558\ub098",
    "\u65e5\u672c\u8a9e\u306e\u6587\u3002 \u4e2d\uff0c\u6587 \U00020000\U0002f800 \U000e0100 \u0e44\u0e17\u0e22 x y",
    "\ufffd \ufffd\ufffd a \ufffdb c d\ufffd e",
    "don't dont cant im ill u.s.a. e.g. o'clock it's its 'tis c++ a/b a-b a_b x=y 5pm 10km 3.5kg",
    "\U0001d165\u302e\u0301\u1715\u0323 a\U0001d15e b \U0001f600\U0001f469\u200d\U0001f4bb c d e",
    "is_alpha IS_ALPHA IS ALPHA orth ORTH a b c d",
    "x" * 3000 + " y z w v u",
    "a\n" * 300,
    "line of five words here\n" * 300,
    "\x00a\x01 b\x1c c\x85d\xa0e\u2028f\u3000g\u180eh\u200bi\ufeffj",
)


def load(name: str) -> ModuleType:
    """Returns a module of this folder, which is no package."""
    spec = importlib.util.spec_from_file_location(f"conformance_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def peers_python() -> Path | None:
    """Returns the interpreter that has datatrove, or None."""
    path = Path(os.environ.get("CORPUSMILL_PEERS_PYTHON", REPOSITORY / ".venv-peers" / "bin" / "python"))
    return path if path.is_file() else None


def made_texts() -> Iterator[tuple[str, str]]:
    """Yields (reference, text) of boundary and fuzz texts."""
    yield from ((f"boundary:{n}", text) for n, text in enumerate(BOUNDARY_TEXTS))
    made = load("rule_documents")
    for reference, _, text in made.fuzz_texts(made.special_cases()):
        yield reference, text.encode("utf-8", "replace").decode()


def shared_texts(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields (reference, text) of every document of the shared data, pages in several extractions."""
    for reference, _, text in load("rule_documents").shared_documents(folder):
        yield reference, text.encode("utf-8", "replace").decode()


def run_oracle(texts: list[str], *options: str) -> list[object]:
    """Returns what datatrove says on each text; see `minhash_oracle`."""
    records = "".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts))
    command = [peers_python(), HERE / "minhash_oracle.py", *options]
    done = subprocess.run(
        command, input=records, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
    )
    return [json.loads(line)["signature"] for line in done.stdout.splitlines()]


if __name__ == "__main__":
    shared_data = Path(os.environ.get("CORPUSMILL_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    wanted = [*made_texts(), *shared_texts(shared_data)]
    digest = load("rule_documents").digest
    found = run_oracle([text for _, text in wanted])
    lines = (
        json.dumps([reference, digest(text), signature], separators=(",", ":")) + "\n"
        for (reference, text), signature in zip(wanted, found, strict=True)
    )
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    GOLDEN.write_bytes(gzip.compress("".join(lines).encode(), compresslevel=9, mtime=0))
    sys.stdout.write(f"{len(wanted)} texts, {GOLDEN.stat().st_size} bytes\n")
