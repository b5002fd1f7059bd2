"""Builds a lexicon from texts.

    python -m corpusmill.rules.compiled.build_lexicon --out FILE TEXT...

A text is plain or JSON lines with a string field named text, sentence_good or question; ``.gz`` is unpacked. Only
distinct whitespace chunks with their tokens go into the lexicon: no order, no counts, no sentence.
"""

import argparse
import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from corpusmill.batches import replace_surrogates
from corpusmill.rules.compiled.chunk_lexicon import ChunkLexicon
from corpusmill.rules.compiled.engine import CompiledRules
from corpusmill.rules.compiled.stored_lexicon import save
from corpusmill.rules.english_tokens import EnglishTokenizer

FIELDS = ("text", "sentence_good", "question")
MAX_CHUNK_CHARS = 40
"""Longer chunks are rarely met twice and are left out."""


def texts_of(path: Path) -> Iterator[str]:
    """Yields the texts of a file, a line each."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as stream:
        for line in stream:
            if ".jsonl" not in path.name:
                yield line
                continue
            record = json.loads(line)
            yield from (record[field] for field in FIELDS if isinstance(record.get(field), str))


def build(paths: Sequence[Path], target: Path) -> int:
    """Writes the lexicon of some files and returns how many chunks it holds."""
    chunks: set[str] = set()
    for path in paths:
        for text in texts_of(path):
            chunks.update(chunk for chunk in replace_surrogates(text)[0].split() if len(chunk) <= MAX_CHUNK_CHARS)
    lexicon = ChunkLexicon(EnglishTokenizer())
    engine = CompiledRules((), None, lexicon)
    for _ in engine.measure(pa.array(sorted(chunks), pa.large_string())):
        pass
    save(lexicon, target)
    return lexicon.n_chunks


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("texts", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    build(options.texts, options.out)


if __name__ == "__main__":
    main()
