"""Examples that refiners are trained on: what a teacher said about a document or a window of lines, with its checks.

One JSON object a line (``.jsonl`` or ``.jsonl.gz``). All ways to labels end here, and all kinds of refiner start here.
"""

import gzip
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from corpusmill.config import StageConfig
from corpusmill.errors import PermanentDataError

Route = Literal["scores", "programs", "rewrite", "gold", "extractor"]
"""How an example got its label: ``scores`` and ``programs`` are the paper's (arXiv 2409.17115 appendix A), ``rewrite``
is RefineX's (arXiv 2507.03253), ``gold`` compares with text that people marked, ``extractor`` with an extractor's."""


class Provenance(StageConfig):
    """Where an example comes from."""

    route: Route
    teacher: str
    """Model and version, extractor and version, or ``people``."""
    source: str = ""
    """Table and snapshot, or file, that the document was sampled from."""
    details: dict[str, Any] = Field(default_factory=dict)
    """Scores, prompt versions, counts: whatever explains this label."""


class DocumentExample(StageConfig):
    """A document with a keep or drop decision."""

    kind: Literal["document"] = "document"
    doc_id: str
    text: str
    decision: Literal["keep", "drop"]
    provenance: Provenance


class ChunkExample(StageConfig):
    """A window of lines with the program that refines it; line numbers are those of the document."""

    kind: Literal["chunk"] = "chunk"
    doc_id: str
    first_line: Annotated[int, Field(ge=0)] = 0
    lines: tuple[str, ...]
    program: str
    """Whole and valid under the strict grammar: checked where examples are made."""
    unsure: tuple[int, ...] = ()
    """Numbers of lines that no label is known for; they count neither in training nor in measuring."""
    domain: str = ""
    """Registered domain of the page, for splits that leak nothing; "" where unknown."""
    provenance: Provenance


Example = DocumentExample | ChunkExample


def write_examples(path: Path, examples: Iterable[Example]) -> int:
    """Writes examples and returns how many; the file appears whole or not at all."""
    part = path.with_name(path.name + ".part")
    opener = gzip.open if path.suffix == ".gz" else open
    n = 0
    with opener(part, "wt", encoding="utf-8") as file:
        for example in examples:
            file.write(example.model_dump_json() + "\n")
            n += 1
    part.replace(path)
    return n


def read_examples(path: Path) -> Iterator[Example]:
    """Yields the examples of a file.

    Raises:
        PermanentDataError: A line is no example; the message names file, line and field.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield _example(path, number, line)
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise PermanentDataError(f"{path} cannot be read: {error}; expected JSON lines of training examples") from error


def _example(path: Path, number: int, line: str) -> Example:
    try:
        row = json.loads(line)
        kind: type[Example] = DocumentExample if row.get("kind") == "document" else ChunkExample
        return kind.model_validate(row)
    except (ValueError, AttributeError, ValidationError) as error:
        raise PermanentDataError(
            f"{path} line {number} is no training example: {str(error)[:500]}; expected the fields of DocumentExample "
            "or ChunkExample"
        ) from error
