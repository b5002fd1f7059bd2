"""Renders the questions that a teacher is asked: which prompts a route has, over which windows of a document.

The texts are in ``prompt_texts/`` and our own. Two scores and three programs follow the scheme of arXiv 2409.17115,
appendix A.1 and A.2 (its educational score is that of FineWeb-Edu, arXiv 2406.17557), the rewrite that of RefineX
(arXiv 2507.03253). Differs: `remove_lines` is asked to quote the lines it deletes, so that numbers shifted by one are
found out. A page stands between marker lines that hold its digest, which no page can foresee.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from string import Template

from corpusmill.config import fingerprint
from corpusmill.prox.annotation_config import AnnotationConfig, DomainConfig
from corpusmill.prox.chunking import Chunk, number_line, split_lines
from corpusmill.prox.seed_document import SeedDocument
from corpusmill.prox.training_examples import Route

PARTS: Mapping[Route, tuple[str, ...]] = {
    "scores": ("educational", "format"),
    "programs": ("navigation", "links", "footers"),
    "rewrite": ("rewrite",),
    "gold": (),
    "extractor": (),
}
"""Questions of each route; the routes without one need no teacher."""
_INCLUDED = ("functions", "normalize", "answer")
_NUMBER = 7
"""Characters that a line's number in brackets and its line break take, about."""

Conversation = tuple[Mapping[str, str], ...]
"""Messages with ``role`` and ``content``."""


@dataclass(frozen=True)
class Request:
    """One question about one window of a document.

    Attributes:
        doc_id: The document.
        part: Which of the route's questions.
        window: The lines asked about.
        conversation: What the teacher is sent.
    """

    doc_id: str
    part: str
    window: Chunk
    conversation: Conversation

    def key(self, version: str, teacher: str) -> str:
        """Returns 64 hex digits over prompt text, prompt version and teacher: equal questions are asked once."""
        text = json.dumps([version, teacher, list(self.conversation)], sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()


def prompt_version(route: Route, domain: DomainConfig) -> str:
    """Returns 16 hex digits over the prompt texts of a route and the domain's words in them."""
    texts = [_text(part) for part in (*PARTS[route], *_INCLUDED)]
    return fingerprint([texts, domain.model_dump(mode="json")])


def teacher_windows(text: str, config: AnnotationConfig) -> list[Chunk]:
    """Returns windows of whole lines within the characters and the lines that a teacher reads at once.

    One line that is longer than a window is a window of its own, and no route asks about it.
    """
    return windows_of(text.split("\n"), config.window_characters, config.window_lines)


def windows_of(lines: list[str], max_characters: int, max_lines: int) -> list[Chunk]:
    """Returns windows of consecutive lines, each greedily filled, a line counted with its number and line break."""
    least = -(-max_characters // max_lines)  # a line costs at least its share, so that lines are bounded too
    return split_lines(lines, [max(least, len(line) + _NUMBER) for line in lines], max_characters)


def requests_of(document: SeedDocument, route: Route, config: AnnotationConfig) -> list[Request]:
    """Returns what is asked about a document: nothing where it is empty or too long, or where no teacher is needed."""
    if not document.text.strip() or len(document.text) > config.max_document_characters:
        return []
    if route == "scores":
        return [score_request(document, part, config) for part in PARTS[route]]
    windows = [window for window in teacher_windows(document.text, config) if is_askable(window, config)]
    return [window_request(document, part, window, config) for window in windows for part in PARTS[route]]


def all_requests(documents: Iterable[SeedDocument], route: Route, config: AnnotationConfig) -> Iterator[Request]:
    """Yields the requests of all documents, in order."""
    for document in documents:
        yield from requests_of(document, route, config)


def is_askable(window: Chunk, config: AnnotationConfig) -> bool:
    """Returns whether a window has text and fits; only a line that is too long alone does not."""
    n = sum(len(line) for line in window.lines)
    return n <= config.window_characters and any(line.strip() for line in window.lines)


def score_request(document: SeedDocument, part: str, config: AnnotationConfig) -> Request:
    """Returns the question for one score; a long document is judged by its beginning."""
    page = document.text[: config.window_characters]
    lines = tuple(page.split("\n"))
    return Request(document.doc_id, part, Chunk(0, lines), _conversation(part, page, 0, config.domain))


def window_request(document: SeedDocument, part: str, window: Chunk, config: AnnotationConfig) -> Request:
    """Returns the question about one window: its lines numbered, or as they are where a rewrite is asked for."""
    page = "\n".join(window.lines if part == "rewrite" else window.numbered())
    return Request(document.doc_id, part, window, _conversation(part, page, window.first_line, config.domain))


def page_markers(page: str) -> tuple[str, str]:
    """Returns the lines in front of and behind a page."""
    digest = hashlib.sha256(page.encode()).hexdigest()[:12]
    return f"-----BEGIN PAGE {digest}-----", f"-----END PAGE {digest}-----"


def _conversation(part: str, page: str, first_line: int, domain: DomainConfig) -> Conversation:
    begin, end = page_markers(page)
    functions = Template(_text("functions")).substitute(first=number_line(first_line, "")[1:-1])
    values = {
        "description": domain.description,
        "valuable": domain.valuable,
        "instructions": domain.instructions + "\n" if domain.instructions else "",
        "functions": functions + ("" if part == "navigation" else _text("normalize")),
        "answer": _text("answer"),
        "begin": begin,
        "end": end,
        "page": page,
    }
    return ({"role": "user", "content": Template(_text(part)).substitute(values).strip()},)


@cache
def _text(name: str) -> str:
    return (resources.files("corpusmill.prox") / "prompt_texts" / f"{name}.txt").read_text(encoding="utf-8")
