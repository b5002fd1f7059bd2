"""Examples that refiners are trained on: what a teacher said about a document or a window of lines, with its checks.

One JSON object a line (``.jsonl`` or ``.jsonl.gz``). All ways to labels end here, and all kinds of refiner start here.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from corpusmill.config import StageConfig
from corpusmill.errors import PermanentDataError
from corpusmill.prox.json_lines import read_json_lines, written_whole

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
    n = 0
    with written_whole(path) as file:
        for example in examples:
            file.write(example.model_dump_json() + "\n")
            n += 1
    return n


def read_examples(path: Path) -> Iterator[Example]:
    """Yields the examples of a file.

    Raises:
        PermanentDataError: A line is no example; the message names file, line and field.
    """
    for number, row in read_json_lines(path, "a training example"):
        yield _example(path, number, row)


def _example(path: Path, number: int, row: Any) -> Example:
    try:
        kind: type[Example] = DocumentExample if row.get("kind") == "document" else ChunkExample
        return kind.model_validate(row)
    except (ValueError, AttributeError, ValidationError) as error:
        raise PermanentDataError(
            f"{path} line {number} is no training example: {str(error)[:500]}; expected the fields of DocumentExample "
            "or ChunkExample"
        ) from error
