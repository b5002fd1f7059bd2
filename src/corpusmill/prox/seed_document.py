"""The documents that labels are made for, and their file: one JSON object a line, gzip or plain."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError, field_validator

from corpusmill.batches import replace_surrogates
from corpusmill.config import StageConfig
from corpusmill.errors import PermanentDataError
from corpusmill.prox.json_lines import read_json_lines, written_whole
from corpusmill.prox.labelled_pages import REMOVE, UNSURE, LabelledPage


class SeedDocument(StageConfig):
    """A document sampled from a corpus; lone surrogates become U+FFFD."""

    doc_id: str
    text: str = ""
    """Text as the refiner will see it; may be empty where ``html`` is given (route ``extractor``)."""
    domain: str = ""
    """Registered domain of the page; the split by domain leaks nothing."""
    source: str = ""
    """Table and snapshot, or file, that the document was sampled from."""
    html: str | None = None
    """The page, for route ``extractor``."""
    gold: str | None = None
    """Main text that people marked, for route ``gold``."""
    remove: tuple[int, ...] | None = None
    """Lines that people marked for removal, for route ``gold``: then nothing has to be aligned."""
    unsure: tuple[int, ...] = ()
    """Lines that nobody knows a label for, beside ``remove``."""
    tier: str = ""
    """Trust in ``gold`` or ``remove`` (``human``, ``reference``, ``silver``), "" where it is not graded."""

    @field_validator("text", "html", "gold", mode="before")
    @classmethod
    def _encodable(cls, value: object) -> object:
        return replace_surrogates(value)[0] if isinstance(value, str) else value


def seed_from_page(page: LabelledPage, source: str = "") -> SeedDocument:
    """Returns a labelled page as a seed document whose labels are given."""
    return SeedDocument(
        doc_id=page.doc_id,
        text="\n".join(line.replace("\n", " ") for line in page.lines),
        domain=page.domain,
        source=source,
        remove=tuple((page.labels == REMOVE).nonzero()[0].tolist()),
        unsure=tuple((page.labels == UNSURE).nonzero()[0].tolist()),
        tier=page.tier,
    )


def write_seed_documents(path: Path, documents: Iterable[SeedDocument]) -> int:
    """Writes documents and returns how many; the file appears whole or not at all."""
    n = 0
    with written_whole(path) as file:
        for document in documents:
            file.write(json.dumps(document.model_dump(mode="json", exclude_defaults=True), ensure_ascii=True) + "\n")
            n += 1
    return n


def read_seed_documents(path: Path) -> Iterator[SeedDocument]:
    """Yields the documents of a file.

    Raises:
        PermanentDataError: The file cannot be read, or a line is no seed document; the message names the line.
    """
    for number, row in read_json_lines(path, "a seed document"):
        yield _document(path, number, row)


def _document(path: Path, number: int, row: Any) -> SeedDocument:
    try:
        return SeedDocument.model_validate(row)
    except (ValueError, ValidationError) as error:
        raise PermanentDataError(
            f"{path} line {number} is no seed document: {str(error)[:500]}; expected an object with doc_id and text"
        ) from error
