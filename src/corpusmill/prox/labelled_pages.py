"""Pages whose lines are labelled keep or remove: reading the files, and carrying labels over to main-content text.

File format: one JSON object a line, with ``lines`` (no blank lines), ``remove`` and ``unsure`` (0-based indices),
``tier`` ("human", "reference", "silver") and ``domain``; gzip or plain. Labels were made on full page text; the product
refines main-content text, so the labels of a page are carried over to its main-content lines by matching equal lines.
Chunk examples (`corpusmill.prox.training_examples`) are read as pages too: what their program removes is labelled so.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from corpusmill.config import fingerprint
from corpusmill.errors import PermanentDataError
from corpusmill.prox.json_lines import read_json_lines
from corpusmill.prox.line_features import nonblank
from corpusmill.prox.program import RemoveAll, RemoveLines
from corpusmill.prox.program_parser import parse_program
from corpusmill.prox.training_examples import ChunkExample

KEEP, REMOVE, UNSURE = 0, 1, -1
_BULLETS = "\u2022\u00b7\u25cf*- \t"


PAGE_ROW = "an object with 'lines' (strings), 'remove' and 'unsure' (0-based line numbers), or a chunk example"
"""What a line of a labelled file is."""


@dataclass(frozen=True)
class LabelledPage:
    """A page's lines with one label each.

    Attributes:
        doc_id: Record id of the page.
        domain: Registered domain; the split into training and dev is by domain.
        tier: Where the labels come from: "human", "reference" or "silver".
        lines: Lines without newline; blank ones may occur in main-content pages and are unsure.
        labels: int8 (lines,): `KEEP`, `REMOVE` or `UNSURE`.
    """

    doc_id: str
    domain: str
    tier: str
    lines: tuple[str, ...]
    labels: npt.NDArray[np.int8]


def read_labelled_pages(path: Path) -> list[LabelledPage]:
    """Returns the pages of a labelled file, or the windows of a file of chunk examples.

    Raises:
        PermanentDataError: A row is not JSON, lacks a field, or names a line that the page does not have.
    """
    pages = []
    for number, row in read_json_lines(path, PAGE_ROW):
        try:
            if row.get("kind") == "chunk":
                pages.append(page_of_example(ChunkExample.model_validate(row)))
                continue
            if min([*row["remove"], *row.get("unsure", [])], default=0) < 0:
                raise IndexError("a line number is negative")
            labels = np.zeros(len(row["lines"]), dtype=np.int8)
            labels[row["remove"]] = REMOVE
            labels[row.get("unsure", [])] = UNSURE
            pages.append(
                LabelledPage(
                    str(row.get("doc_id", number)),
                    str(row.get("domain", "")),
                    str(row.get("tier", "human")),
                    tuple(str(line).replace("\n", " ") for line in row["lines"]),
                    labels,
                )
            )
        except (KeyError, IndexError, TypeError, AttributeError, ValidationError) as error:
            raise PermanentDataError(
                f"{path} line {number}: {error!r}; expected {PAGE_ROW}; rebuild the file"
            ) from error
    if not pages:
        raise PermanentDataError(f"{path} holds no labelled page; expected at least one JSON object a line")
    return pages


def pages_digest(pages: Sequence[LabelledPage]) -> str:
    """Returns 16 hex digits of all that a training takes from pages: lines, labels and tiers, in order."""
    return fingerprint([fingerprint([page.lines, page.labels.tolist(), page.tier]) for page in pages])


def page_of_example(example: ChunkExample) -> LabelledPage:
    """Returns a window of lines with the labels that its program gives them: removed or not, clipped to the window.

    String edits keep their line. The tier is the one that the example's details name, else "human" for labels from
    people's text and "silver" for all other ways.
    """
    labels = np.full(len(example.lines), KEEP, dtype=np.int8)
    for operation in parse_program(example.program, "strict").ops:
        if isinstance(operation, RemoveAll):
            labels[:] = REMOVE
        elif isinstance(operation, RemoveLines):
            first, last = operation.first - example.first_line, operation.last - example.first_line
            labels[max(0, first) : max(0, last + 1)] = REMOVE
    unsure = [number - example.first_line for number in example.unsure]
    labels[[row for row in unsure if 0 <= row < len(labels)]] = UNSURE
    origin = example.provenance
    tier = origin.details.get("tier", "human" if origin.route == "gold" else "silver")
    return LabelledPage(example.doc_id, example.domain, str(tier), example.lines, labels)


def page_with_text(page: LabelledPage) -> LabelledPage:
    """Returns the page without its blank lines."""
    rows = nonblank(page.lines)
    return replace(page, lines=tuple(page.lines[i] for i in rows), labels=page.labels[rows])


def carry_labels(page: LabelledPage, lines: Sequence[str]) -> LabelledPage:
    """Returns another extraction of the same page with the labels of equal lines; other lines are unsure.

    Lines are compared with white space folded and list bullets taken off: first in order (longest common block first),
    then, for a line out of order, by any equal line if all equal lines agree.

    Args:
        page: The labelled extraction.
        lines: Lines of the other extraction, blank ones included.
    """
    ours = [_folded(line) for line in lines]
    theirs = [_folded(line) for line in page.lines]
    labels = np.full(len(lines), UNSURE, dtype=np.int8)
    anywhere: dict[str, set[int]] = {}
    for text, label in zip(theirs, page.labels.tolist(), strict=True):
        anywhere.setdefault(text, set()).add(label)
    for i, text in enumerate(ours):
        if text and len(found := anywhere.get(text, set())) == 1:
            labels[i] = next(iter(found))
    filled = [i for i, text in enumerate(ours) if text]
    matcher = SequenceMatcher(None, [ours[i] for i in filled], theirs, autojunk=False)
    for a, b, n in matcher.get_matching_blocks():
        labels[filled[a : a + n]] = page.labels[b : b + n]
    return LabelledPage(page.doc_id, page.domain, page.tier, tuple(lines), labels)


def _folded(line: str) -> str:
    return " ".join(line.split()).lstrip(_BULLETS)


def main_content_pages(pages: Sequence[LabelledPage], crawls: Path) -> list[LabelledPage]:
    """Returns the labelled pages again as resiliparse's main-content text, blank lines between paragraphs included.

    Pages whose record is not in the crawls, that have fewer than three lines of main content, or of which less than
    half the characters could be labelled are left out.

    Args:
        pages: Labelled full texts; ``doc_id`` is the tail of the record id.
        crawls: Folder with ``crawl-data/`` and ``gold/*.pages.jsonl.gz`` that names each record's file and offset.
    """
    records = {
        row["record_id"].rsplit(":", 1)[-1]: row
        for index in sorted((crawls / "gold").glob("*.pages.jsonl.gz"))
        for _, row in read_json_lines(index, "a gold page of a crawl")
    }
    made = []
    for page in pages:
        if (record := records.get(page.doc_id)) is None:
            continue
        text = _main_content(crawls / record["warc_filename"], record)
        carried = carry_labels(page, text.split("\n"))
        sizes = np.array([len(line.strip()) for line in carried.lines])
        known = sizes[carried.labels != UNSURE].sum()
        if (sizes > 0).sum() >= 3 and known >= 0.5 * sizes.sum():
            made.append(carried)
    return made


def _main_content(warc: Path, record: dict[str, Any]) -> str:
    from fastwarc.warc import ArchiveIterator
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.encoding import detect_encoding

    with warc.open("rb") as file:
        file.seek(record["offset"])
        member = file.read(record["length"])
    body = next(iter(ArchiveIterator(io.BytesIO(member), parse_http=True))).reader.read()
    charset = record["charset"] or detect_encoding(body) or "utf-8"
    html = body.decode(charset, "replace")
    # the options of the default extraction of the product
    return extract_plain_text(
        html,
        main_content=True,
        preserve_formatting=True,
        alt_texts=False,
        links=False,
        comments=False,
        form_fields=False,
        noscript=False,
    )
