"""Language identification on a sample of a text against the whole text: decisions and CPU time, beside the rules'.

    .venv/bin/python benchmarks/language.py [--data ../shared/data]

Texts: the pages of every crawl in ``--data`` in three extractions, documents of other collections, oracles' documents,
paragraphs of the Declaration of Human Rights in 53 languages, and two made-up sets that mix languages. A decision is
the label, whether its score is above 0.65 (keep, any language wanted), and whether English scores above 0.65 (keep,
English wanted). The rules' time is that of FineWeb's chain on the English pages, compiled, with the shipped lexicon.

The last line is JSON: the share of equal decisions over all real texts, and seconds of identification over seconds of
rules, whole and sampled, both on the English pages.
"""

import argparse
import gzip
import json
import os
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from corpusmill.ingest.config import IngestConfig, ResiliparseOptions
from corpusmill.ingest.stage import IngestStage
from corpusmill.rules.language import Identified, LanguageIdentifier

REPOSITORY = Path(__file__).resolve().parent.parent
THRESHOLD = 0.65
SIZES = (2_000, 8_000, 32_000, 1 << 60)
MADE_UP = ("two languages in turn", "one page inside another")
Texts = dict[str, list[str]]


def records(paths: list[Path]) -> Iterator[dict[str, str]]:
    """Yields the records of gzipped JSON line files."""
    for path in sorted(paths):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def crawl_texts(crawl: Path, options: ResiliparseOptions) -> list[str]:
    """Returns the texts of all pages of a crawl folder."""
    stage = IngestStage(IngestConfig(resiliparse=options, max_seconds=None))
    texts: list[str] = []
    for path in sorted(crawl.glob("crawl-data/**/warc/*.warc.gz")):
        for output in stage.read_file(str(crawl), str(path.relative_to(crawl)), "benchmark", crawl):
            texts += output.kept.column("text").to_pylist()
    return texts


def all_texts(data: Path) -> Texts:
    """Returns the sets of texts by name."""
    sets = {
        "crawls, main content": crawl_texts(data / "crawls", ResiliparseOptions()),
        "crawls, line model": crawl_texts(data / "crawls", ResiliparseOptions(line_model=True)),
        "crawls, full text": crawl_texts(data / "crawls", ResiliparseOptions(main_content=False)),
        "other collections": [r["text"] for r in records(list((data / "web_jsonl").glob("*.jsonl.gz")))],
        "oracles": [r["text"] for r in records(list((data / "oracles").glob("*.jsonl.gz")))],
    }
    paragraphs = defaultdict(list)
    for record in records([data / "eval" / "langid_udhr.jsonl.gz"]):
        paragraphs[record["lang"]].append(record["text"])
    sets["declaration, paragraphs"] = [text for texts in paragraphs.values() for text in texts]
    sets["declaration, whole"] = ["\n".join(texts) for texts in paragraphs.values()]
    return sets | mixed(sets["crawls, main content"], list(paragraphs.values()))


def mixed(pages: list[str], paragraphs: list[list[str]]) -> Texts:
    """Returns texts in two languages one after the other, and pages with the lines of another page inside."""
    dice = random.Random(3)
    turns, inside = [], []
    for _ in range(400):
        halves = ["\n".join(texts * 3)[: dice.randint(300, 8000)] for texts in dice.sample(paragraphs, 2)]
        turns.append("\n".join(halves))
        outer, inner = (page.split("\n") for page in dice.sample(pages, 2))
        at = dice.randint(0, len(outer))
        inside.append("\n".join(outer[:at] + inner + outer[at:]))
    return dict(zip(MADE_UP, (turns, inside), strict=True))


def decision(found: Identified) -> tuple[str | None, bool, bool]:
    """Returns label and decisions."""
    return found.language, (found.score or 0) > THRESHOLD, (found.wanted_score or 0) > THRESHOLD


def measure(identify: Callable[[str], Identified], texts: list[str]) -> tuple[list[Identified], float]:
    """Returns the languages of texts and the CPU seconds that they took."""
    started = time.process_time()
    found = [identify(text) for text in texts]
    return found, time.process_time() - started


def rules_seconds(texts: list[str]) -> float:
    """Returns the CPU seconds of FineWeb's chain on English texts that its lexicon has not seen."""
    import pyarrow as pa

    from corpusmill.rules.compiled.chunk_lexicon import ChunkLexicon
    from corpusmill.rules.compiled.engine import CompiledRules
    from corpusmill.rules.compiled.stored_lexicon import load_shipped
    from corpusmill.rules.english_tokens import EnglishTokenizer
    from corpusmill.rules.presets import PRESETS

    preset = PRESETS["fineweb"]
    lexicon = ChunkLexicon(EnglishTokenizer())
    load_shipped(lexicon)
    engine = CompiledRules([name for name in preset.rule_sets if name != "url"], preset.c4_lines, lexicon)
    list(engine.measure(pa.array(["Words to load the kernels. " * 40], pa.large_string())))
    column = pa.array(texts, pa.large_string())
    started = time.process_time()
    list(engine.measure(column))
    return time.process_time() - started


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("CORPUSMILL_SHARED_DATA", REPOSITORY.parent / "shared" / "data")
    parser.add_argument("--data", type=Path, default=Path(shared))
    parser.add_argument("--every", type=int, default=1, help="take only every n-th text of large sets")
    options = parser.parse_args()
    whole, sampled = LanguageIdentifier(), LanguageIdentifier(sample=True)
    found = all_texts(options.data.resolve())
    sets = {name: texts[:: options.every] if len(texts) > 300 else texts for name, texts in found.items()}
    by_size: dict[int, Counter[str]] = {size: Counter() for size in SIZES}
    real: Counter[str] = Counter()
    print("set | texts | characters | equal decisions | s whole | s sampled", file=sys.stderr)
    for name, texts in sets.items():
        expected, slow = measure(lambda text: whole.identify(text, {"en"}), texts)
        answers, fast = measure(lambda text: sampled.identify(text, {"en"}), texts)
        equal = [decision(a) == decision(b) for a, b in zip(expected, answers, strict=True)]
        share = sum(equal) / len(equal)
        print(
            f"{name} | {len(texts)} | {sum(map(len, texts))} | {share:.2%} | {slow:.2f} | {fast:.2f}", file=sys.stderr
        )
        if name not in MADE_UP:
            real.update(texts=len(texts), equal=sum(equal))
        for text, same in zip(texts, equal, strict=True):
            by_size[next(size for size in SIZES if len(text) < size)].update(texts=1, equal=int(same))
        if name == "crawls, main content":
            english = [text for text, one in zip(texts, expected, strict=True) if one.language == "en"]
    for size, counts in by_size.items():
        share = counts["equal"] / max(1, counts["texts"])
        print(f"all sets, below {size} characters | {counts['texts']} | {share:.2%}", file=sys.stderr)
    rules = rules_seconds(english)
    slow, fast = (measure(lambda text, i=i: i.identify(text, {"en"}), english)[1] for i in (whole, sampled))
    print(
        f"{len(english)} English pages: rules {rules:.2f} s, whole {slow:.2f} s, sampled {fast:.2f} s", file=sys.stderr
    )
    result = {
        "agreement": round(real["equal"] / real["texts"], 5),
        "whole_over_rules": round(slow / rules, 2),
        "sampled_over_rules": round(fast / rules, 2),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
