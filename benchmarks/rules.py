"""FineWeb's text rules: the compiled engine against datatrove's filters, on the same extracted pages, in one run.

    CORPUSMILL_HOME=... .venv/bin/python benchmarks/rules.py --warc FILE... [--rounds 3] [--pages N]

Chain: Gopher repetition, Gopher quality, C4 without terminal punctuation, FineWeb. Pages: main content of every HTML
response whose language is English. Both sides take text in memory and run on one core in processes of their own; time
is CPU time of the chain alone, rounds of both sides alternate, and each figure is the median.

cold: no lexicon at all. unseen: the shipped lexicon, pages that it was not made from. warm: the same pages again.
The last line is JSON; decisions, reasons and rewritten texts that differ from datatrove's are ``mismatches``.
"""

import argparse
import hashlib
import importlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
OURS, PEER = "ours", "datatrove"


def pages(paths: list[Path]) -> Iterator[str]:
    """Yields the main content of each English page."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import bytes_to_str, detect_encoding

    from corpusmill.rules.language import LanguageIdentifier

    languages = LanguageIdentifier()
    for path in paths:
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream, record_types=WarcRecordType.response, parse_http=True):
                body = record.reader.read()
                html = bytes_to_str(body, detect_encoding(body))
                text = extract_plain_text(html, main_content=True, preserve_formatting=True)
                if text and languages.identify(text).language == "en":
                    yield text


def digest(text: str) -> str:
    """Returns 16 hex digits over a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def run_peer(texts: list[str]) -> dict[str, Any]:
    """Returns the CPU seconds and verdicts of datatrove's filters; runs in the peers' environment."""
    document = importlib.import_module("datatrove.data").Document
    filters = importlib.import_module("datatrove.pipeline.filters")
    chain = [
        filters.GopherRepetitionFilter(),
        filters.GopherQualityFilter(),
        filters.C4QualityFilter(filter_no_terminal_punct=False),
        filters.FineWebQualityFilter(),
    ]
    documents = [document(text=text, id="0") for text in texts]
    for step in chain:  # the tokenizer is loaded before the clock starts
        step.filter(document(text="One two three. " * 40, id="0"))
    verdicts = []
    started = time.process_time()
    for one in documents:
        verdict = "keep"
        for step in chain:
            result = step.filter(one)
            kept, reason = result if isinstance(result, tuple) else (result, "")
            if not kept:
                verdict = reason
                break
        verdicts.append(verdict)
    seconds = time.process_time() - started
    return {"seconds": seconds, "verdicts": [[v, digest(d.text)] for v, d in zip(verdicts, documents, strict=True)]}


def run_ours(texts: list[str]) -> dict[str, Any]:
    """Returns the CPU seconds of the engine cold, with the shipped lexicon and warm, and its verdicts."""
    import pyarrow as pa

    from corpusmill.rules.compiled.chunk_lexicon import ChunkLexicon
    from corpusmill.rules.compiled.engine import CompiledRules
    from corpusmill.rules.compiled.stored_lexicon import load_shipped
    from corpusmill.rules.english_tokens import EnglishTokenizer
    from corpusmill.rules.presets import PRESETS

    sys.path.insert(0, str(REPOSITORY / "tests" / "conformance"))
    reasons = importlib.import_module("rule_parity").DATATROVE_REASONS
    from corpusmill.rules.decision import first_reason

    preset = PRESETS["fineweb"]
    rule_sets = [name for name in preset.rule_sets if name != "url"]
    column = pa.array(texts, pa.large_string())
    seconds = {}
    for name, shipped in (("cold", False), ("unseen", True)):
        lexicon = ChunkLexicon(EnglishTokenizer())
        if shipped:
            load_shipped(lexicon)
        engine = CompiledRules(rule_sets, preset.c4_lines, lexicon)
        started = time.process_time()
        groups = list(engine.measure(column))
        seconds[name] = time.process_time() - started
    started = time.process_time()
    groups = list(engine.measure(column))
    seconds["warm"] = time.process_time() - started
    verdicts = []
    for group in groups:
        for k in range(len(group.starts)):
            assert group.usable[k], "a page of the benchmark needs the Python definitions"
            text, measures = texts[len(verdicts)], group.measures(k)
            found = (
                (name, first_reason([r for r in preset.rules if r.rule_set == name], measures)) for name in rule_sets
            )
            name, reason = next(((name, reason) for name, reason in found if reason), ("fineweb", None))
            rewritten = group.text(k) if name == "fineweb" else text
            verdicts.append([reasons[reason] if reason else "keep", digest(rewritten)])
    return {"seconds": seconds, "verdicts": verdicts}


def run_side(side: str, texts: Path) -> dict[str, Any]:
    """Runs one side in a process of its own and returns what it prints."""
    ours = Path(sys.executable)
    peer = Path(os.environ.get("CORPUSMILL_PEERS_PYTHON", REPOSITORY / ".venv-peers" / "bin" / "python"))
    if side == PEER and not peer.is_file():
        raise SystemExit(f"{peer} does not exist; run make peers or set CORPUSMILL_PEERS_PYTHON")
    command = [ours if side == OURS else peer, __file__, "--side", side, "--texts", texts]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def compare(texts: list[str], rounds: int) -> dict[str, float]:
    """Returns the ratios and mismatches over alternating rounds of both sides."""
    peer, ours = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "texts.json"
        path.write_text(json.dumps(texts))
        for number in range(rounds):
            peer.append(run_side(PEER, path))
            ours.append(run_side(OURS, path))
            print(f"round {number + 1}: datatrove {peer[-1]['seconds']:.2f} s, ours {ours[-1]['seconds']}", flush=True)
    pairs = zip(peer[-1]["verdicts"], ours[-1]["verdicts"], strict=True)
    result: dict[str, float] = {"mismatches": sum(theirs != mine for theirs, mine in pairs)}
    for name in ("cold", "unseen", "warm"):
        ratios = [theirs["seconds"] / mine["seconds"][name] for theirs, mine in zip(peer, ours, strict=True)]
        result[f"ratio_{name}"] = round(statistics.median(ratios), 1)
    return result


def main() -> None:
    """Runs the benchmark, or one side of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--warc", nargs="+", type=Path, default=[], help="WARC files")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pages", type=int, help="take so many pages at most")
    parser.add_argument("--side", choices=(OURS, PEER), help=argparse.SUPPRESS)
    parser.add_argument("--texts", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        texts = json.loads(options.texts.read_text())
        print(json.dumps(run_ours(texts) if options.side == OURS else run_peer(texts)))
        return
    texts = list(itertools.islice(pages(options.warc), options.pages))
    print(f"{len(texts)} English pages, {sum(len(text.encode()) for text in texts) / 1e6:.1f} MB")
    print(json.dumps(compare(texts, options.rounds)))


if __name__ == "__main__":
    main()
