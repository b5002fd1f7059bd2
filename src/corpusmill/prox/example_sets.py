"""Sets of training examples: without repeated texts, split by domain, and as a file of labelled pages."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.prox.json_lines import written_whole
from corpusmill.prox.labelled_pages import REMOVE, UNSURE, LabelledPage, page_of_example, page_with_text
from corpusmill.prox.program_synthesis import content_digest
from corpusmill.prox.training_examples import ChunkExample, Example


def drop_duplicates(examples: Iterable[Example]) -> Iterator[Example]:
    """Yields the first example of each text; for examples of several shards, which were checked one by one."""
    seen: set[str] = set()
    for example in examples:
        digest = content_digest(example)
        if digest not in seen:
            seen.add(digest)
            yield example


def split_examples(
    examples: Iterable[Example], validation_share: float, salt: str = ""
) -> tuple[list[Example], list[Example]]:
    """Returns training and validation examples, split by the hash of their domain (of their document, without one).

    No domain is in both, and a domain's side depends on nothing but its name and the salt, so it stays when examples
    are added. Only where all domains fall on one side, the one with the lowest hash validates and the others train.

    Args:
        examples: Any examples.
        validation_share: Share of the domains that validate, in (0, 1); of the examples only about.
        salt: Another one gives another split.

    Raises:
        ConfigError: ``validation_share`` is not in (0, 1).
    """
    if not 0 < validation_share < 1:
        raise ConfigError(f"validation_share={validation_share!r} is not between 0 and 1")
    placed = [(_fraction(salt, domain_of(example) or example.doc_id), example) for example in examples]
    fractions = {fraction for fraction, _ in placed}
    n_validating = sum(fraction < validation_share for fraction in fractions)
    if len(fractions) > 1 and n_validating in (0, len(fractions)):
        validation_share = min(fractions - {min(fractions)})
    sides: tuple[list[Example], list[Example]] = ([], [])
    for fraction, example in placed:
        sides[fraction < validation_share].append(example)
    return sides


def domain_of(example: Example) -> str:
    """Returns the registered domain of an example's page, "" where it is not known."""
    if isinstance(example, ChunkExample):
        return example.domain
    return str(example.provenance.details.get("domain", ""))


def _fraction(salt: str, name: str) -> float:
    digest = hashlib.sha256(f"{salt}\n{name}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def write_labelled_pages(path: Path, examples: Iterable[Example]) -> int:
    """Writes chunk examples as labelled pages and returns how many; the file appears whole or not at all.

    Consecutive windows of a document become one page again; blank lines go. Strings that a program deletes keep their
    line, since labels are of whole lines. Document examples are left out.

    Args:
        path: ``.jsonl`` or ``.jsonl.gz``.
        examples: Windows of one document must stand together and in order, as synthesis makes them.

    Raises:
        PermanentDataError: There is no chunk example with text.
    """
    n = 0
    with written_whole(path) as file:
        for page in labelled_pages(examples):
            file.write(json.dumps(_row(page), ensure_ascii=True) + "\n")
            n += 1
        if n == 0:
            raise PermanentDataError(f"no chunk example with text for {path}; expected examples of a route that edits")
    return n


def labelled_pages(examples: Iterable[Example]) -> Iterator[LabelledPage]:
    """Yields the pages of `write_labelled_pages`."""
    chunks = (example for example in examples if isinstance(example, ChunkExample))
    for _, windows in groupby(chunks, key=lambda example: (example.doc_id, example.provenance.route)):
        for run in _consecutive(list(windows)):
            page = page_with_text(_joined(run))
            if page.lines:
                yield page


def _consecutive(windows: Sequence[ChunkExample]) -> Iterator[list[ChunkExample]]:
    """Yields runs of windows that follow each other; a refused window between two parts them."""
    run: list[ChunkExample] = []
    for window in windows:
        if run and window.first_line != run[-1].first_line + len(run[-1].lines):
            yield run
            run = []
        run.append(window)
    if run:
        yield run


def _joined(run: Sequence[ChunkExample]) -> LabelledPage:
    pages = [page_of_example(window) for window in run]
    first = pages[0]
    doc_id = first.doc_id if run[0].first_line == 0 else f"{first.doc_id}#{run[0].first_line}"
    lines = tuple(line for page in pages for line in page.lines)
    return LabelledPage(doc_id, first.domain, first.tier, lines, np.concatenate([page.labels for page in pages]))


def _row(page: LabelledPage) -> dict[str, Any]:
    return {
        "doc_id": page.doc_id,
        "domain": page.domain,
        "tier": page.tier,
        "lines": list(page.lines),
        "remove": (page.labels == REMOVE).nonzero()[0].tolist(),
        "unsure": (page.labels == UNSURE).nonzero()[0].tolist(),
    }
