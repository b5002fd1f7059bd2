"""Makes training examples from seed documents by any of the routes to labels, and says what was refused and why.

Routes: ``scores`` and ``programs`` as in the paper (arXiv 2409.17115, appendix A), ``rewrite`` as in RefineX
(arXiv 2507.03253), ``gold`` from text or lines that people marked, ``extractor`` from an extractor or any cleaner. All
have one signature; a domain differs from another by its settings only. Every example is checked: strict mode reads its
program without fault, executing it gives exactly the labelled text, something is left of the document, and no text
occurs twice.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from corpusmill.errors import ConfigError
from corpusmill.prox.annotation_config import SynthesisConfig
from corpusmill.prox.annotation_prompts import (
    PARTS,
    Request,
    is_askable,
    prompt_version,
    score_request,
    teacher_windows,
    window_request,
)
from corpusmill.prox.answer_store import Answers
from corpusmill.prox.chunking import Chunk
from corpusmill.prox.line_edits import LineEdits, RejectedError, executed, program_fault, settled, write_edits
from corpusmill.prox.reference_labels import (
    Cleaner,
    cleaned,
    edits_of_reference,
    extractor_name,
    full_text,
    main_text,
)
from corpusmill.prox.rewrite_diff import edits_of_rewrite
from corpusmill.prox.seed_document import SeedDocument
from corpusmill.prox.teacher_answers import edits_of_programs, keeps_document, parse_score
from corpusmill.prox.training_examples import ChunkExample, DocumentExample, Example, Provenance, Route


@dataclass(frozen=True)
class Reject:
    """A document or window without a label: which, the reason code, and the reason in words."""

    doc_id: str
    first_line: int | None
    reason: str
    message: str


@dataclass
class SynthesisReport:
    """What came of the documents.

    Attributes:
        route: How labels were made.
        teacher: By whom.
        n_documents: Documents given.
        n_examples: Examples made.
        n_keep: Examples that keep everything: their share is set in training.
        n_lines: Lines of chunk examples.
        n_removed: Lines that they remove.
        n_unsure: Lines without a label.
        n_normalizes: Strings that they delete.
        n_undone: Characters that a teacher deleted and no program can, on lines that are now unsure.
        reasons: Rejects by reason code.
    """

    route: str
    teacher: str
    n_documents: int = 0
    n_examples: int = 0
    n_keep: int = 0
    n_lines: int = 0
    n_removed: int = 0
    n_unsure: int = 0
    n_normalizes: int = 0
    n_undone: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def keep_share(self) -> float:
        """Share of the examples that keep everything, 0 where there are none."""
        return self.n_keep / max(1, self.n_examples)

    def as_dict(self) -> dict[str, Any]:
        """Returns all counts and the keep share, for JSON."""
        return {**asdict(self), "reasons": dict(sorted(self.reasons.items())), "keep_share": round(self.keep_share, 4)}


@dataclass(frozen=True)
class Synthesis:
    """Examples, what was refused, and the counts."""

    examples: list[Example]
    rejects: list[Reject]
    report: SynthesisReport


def synthesise(
    route: Route,
    documents: Iterable[SeedDocument],
    answers: Answers | None,
    config: SynthesisConfig,
    *,
    teacher: str | None = None,
    cleaner: Cleaner | None = None,
    cleaner_name: str = "",
) -> Synthesis:
    """Returns the examples of a route.

    Args:
        route: How labels are made.
        documents: Seed documents, as they were annotated.
        answers: What the teacher said (`corpusmill.prox.answer_store.read_answers`); None for ``gold`` and
            ``extractor``.
        config: Domain, windows and checks; ``config.annotation`` must equal the settings of annotation.
        teacher: Whose answers are taken; None where the answers are of one teacher.
        cleaner: Route ``extractor``: this function on each document's text is the reference, instead of an extractor on
            its HTML.
        cleaner_name: Name and version of the cleaner, for provenance.

    Raises:
        ConfigError: There are no answers where the route needs them, or they are of several teachers and none is named.
    """
    if cleaner is not None and not cleaner_name:
        raise ConfigError("a cleaner needs cleaner_name (name and version), which stands in every example's provenance")
    labels = _Labels(route, answers, config, _teacher(route, answers, config, teacher, cleaner_name), cleaner)
    out = Synthesis([], [], SynthesisReport(route, labels.teacher))
    seen: set[str] = set()
    for document in documents:
        out.report.n_documents += 1
        for item in labels.of(document):
            if not isinstance(item, Reject) and (digest := content_digest(item)) in seen:
                item = Reject(item.doc_id, _first_line(item), "duplicate", "the same text has an example already")
            if isinstance(item, Reject):
                out.rejects.append(item)
                out.report.reasons[item.reason] += 1
                continue
            seen.add(digest)
            out.examples.append(item)
            _count(out.report, item)
    return out


def content_digest(example: Example) -> str:
    """Returns 64 hex digits over the text that an example shows a model, its label and line numbers apart."""
    text = example.text if isinstance(example, DocumentExample) else "\n".join(example.lines)
    return hashlib.sha256(f"{example.kind}\n{text}".encode()).hexdigest()


def _first_line(example: Example) -> int | None:
    return example.first_line if isinstance(example, ChunkExample) else None


def _count(report: SynthesisReport, example: Example) -> None:
    report.n_examples += 1
    if isinstance(example, DocumentExample):
        report.n_keep += example.decision == "keep"
        return
    details = example.provenance.details
    report.n_keep += example.program == "keep_chunk()"
    report.n_lines += len(example.lines)
    report.n_removed += details["n_removed_lines"]
    report.n_normalizes += details["n_normalizes"]
    report.n_undone += details["n_undone"]
    report.n_unsure += len(example.unsure)


def _teacher(
    route: Route, answers: Answers | None, config: SynthesisConfig, teacher: str | None, cleaner_name: str
) -> str:
    if route == "gold":
        return "people"
    if route == "extractor":
        return cleaner_name or extractor_name(config.extractor)
    if answers is None:
        raise ConfigError(f"answers=None; route {route!r} needs what a teacher said, from read_answers")
    if teacher is None and len(answers.teachers) > 1:
        raise ConfigError(f"the answers are of teachers {answers.teachers}; name the one whose answers count")
    return teacher or next(iter(answers.teachers), "")


class _Labels:
    """Labels documents by one route."""

    def __init__(
        self, route: Route, answers: Answers | None, config: SynthesisConfig, teacher: str, cleaner: Cleaner | None
    ) -> None:
        self.route, self.config, self.teacher, self.cleaner = route, config, teacher, cleaner
        self.answers = answers or Answers()
        self.version = prompt_version(route, config.annotation.domain)
        by_route: dict[Route, Callable[[SeedDocument], Iterator[Example | Reject]]] = {
            "scores": self._scores,
            "programs": self._windows,
            "rewrite": self._windows,
            "gold": self._gold,
            "extractor": self._extractor,
        }
        self.label = by_route[route]

    def of(self, document: SeedDocument) -> Iterator[Example | Reject]:
        """Yields the examples and rejects of a document; at least one."""
        try:
            if max(len(document.text), 0) > self.config.annotation.max_document_characters:
                raise RejectedError("document_too_long", f"{len(document.text)} characters")
            if not document.text.strip() and not (self.route == "extractor" and document.html):
                raise RejectedError("no_text", "the document is empty")
            yield from self.label(document)
        except RejectedError as error:
            yield Reject(document.doc_id, None, error.reason, str(error))

    def _answer(self, request: Request) -> str:
        row = self.answers.get(request.key(self.version, self.teacher))
        if row is None:
            raise RejectedError("not_annotated", f"{request.part}: the question was not asked of {self.teacher!r}")
        if row.error:
            raise RejectedError("teacher_failed", f"{request.part}: {row.error[:200]}")
        if row.finish_reason == "length":
            raise RejectedError("answer_truncated", f"{request.part}: the answer was cut at the token limit")
        return row.text

    def _provenance(self, document: SeedDocument, **details: Any) -> Provenance:
        if self.route in ("scores", "programs", "rewrite"):
            details |= {"prompt_version": self.version, "domain_name": self.config.annotation.domain.name}
        if document.tier:
            details["tier"] = document.tier
        return Provenance(route=self.route, teacher=self.teacher, source=document.source, details=details)

    def _scores(self, document: SeedDocument) -> Iterator[Example | Reject]:
        scores = {
            part: parse_score(part, self._answer(score_request(document, part, self.config.annotation)))
            for part in PARTS["scores"]
        }
        keep = keeps_document(scores["educational"], scores["format"])
        yield DocumentExample(
            doc_id=document.doc_id,
            text=document.text,
            decision="keep" if keep else "drop",
            provenance=self._provenance(
                document,
                **scores,
                domain=document.domain,
                judged_by_beginning=len(document.text) > self.config.annotation.window_characters,
            ),
        )

    def _windows(self, document: SeedDocument) -> Iterator[Example | Reject]:
        """Labels what the teacher was asked about, window by window; a refused window does not touch the others."""
        labelled = []
        for window in teacher_windows(document.text, self.config.annotation):
            if not any(line.strip() for line in window.lines):
                continue
            try:
                labelled.append(self._window_edits(document, window))
            except RejectedError as error:
                yield Reject(document.doc_id, window.first_line, error.reason, str(error))
        yield from self._examples(document, labelled)

    def _window_edits(self, document: SeedDocument, window: Chunk) -> LineEdits:
        annotation = self.config.annotation
        if not is_askable(window, annotation):
            raise RejectedError("line_too_long", f"a line is over {annotation.window_characters} characters")
        said = [(part, self._answer(window_request(document, part, window, annotation))) for part in PARTS[self.route]]
        if self.route == "programs":
            return edits_of_programs(window, said)
        return edits_of_rewrite(window, said[0][1], self.config)

    def _gold(self, document: SeedDocument) -> Iterator[Example | Reject]:
        lines = tuple(document.text.split("\n"))
        if document.remove is not None:
            if not all(0 <= n < len(lines) for n in (*document.remove, *document.unsure)):
                raise RejectedError("line_out_of_range", f"a labelled line is not among {len(lines)} lines")
            edits = LineEdits(0, lines, frozenset(document.remove), unsure=frozenset(document.unsure))
            yield from self._examples(document, [edits])
            return
        if document.gold is None:
            raise RejectedError("no_gold", "the document has neither gold text nor labelled lines")
        edits, aligned = edits_of_reference(lines, document.gold, self.config)
        yield from self._examples(document, [edits], reference_found=round(aligned.found, 3))

    def _extractor(self, document: SeedDocument) -> Iterator[Example | Reject]:
        if self.cleaner is not None:
            text, reference = document.text, cleaned(document.text, self.cleaner)
        elif document.html is not None:
            text, reference = full_text(document.html), main_text(document.html, self.config.extractor)
        else:
            raise RejectedError("no_html", "the document has no HTML, and no cleaner is given")
        if len(text) > self.config.annotation.max_document_characters:
            raise RejectedError("document_too_long", f"{len(text)} characters")
        edits, aligned = edits_of_reference(text.split("\n"), reference, self.config)
        yield from self._examples(document, [edits], reference_found=round(aligned.found, 3))

    def _examples(
        self, document: SeedDocument, labelled: list[LineEdits], **details: Any
    ) -> Iterator[Example | Reject]:
        """Cuts a document's edits into windows of the refiner's size and checks each."""
        labelled = [settled(edits) for edits in labelled]
        if labelled and all(edits.removes_everything for edits in labelled):
            raise RejectedError("removes_everything", "no line with text is left")
        size, total = (
            sum(edits.n_removed_characters for edits in labelled),
            sum(len("".join("".join(edits.lines).split())) for edits in labelled),
        )
        if self.route != "gold" and total and size / total >= self.config.max_removed_share:
            raise RejectedError("removes_too_much", f"{size / total:.0%} of the characters are removed")
        for edits in labelled:
            for window in edits.windows(self.config.example_characters, self.config.example_lines):
                if not any(line.strip() for line in window.lines):
                    continue
                try:
                    yield self._example(document, window, details)
                except RejectedError as error:
                    yield Reject(document.doc_id, window.first_line, error.reason, str(error))

    def _example(self, document: SeedDocument, edits: LineEdits, details: dict[str, Any]) -> ChunkExample:
        written = write_edits(edits)
        if written.n_undone > self.config.max_undone_share * max(1, edits.n_removed_characters):
            raise RejectedError(
                "ambiguous_edit",
                f"{written.n_undone} of {edits.n_removed_characters} characters to be removed cannot be named: their "
                "text stands elsewhere in the window too",
            )
        done = written.done
        example = ChunkExample(
            doc_id=document.doc_id,
            first_line=done.first_line,
            lines=done.lines,
            program=written.program,
            unsure=tuple(sorted(done.unsure)),
            domain=document.domain,
            provenance=self._provenance(
                document,
                n_removed_lines=len(done.removed),
                n_normalizes=written.program.count("normalize("),
                n_removed_characters=done.n_removed_characters,
                n_undone=written.n_undone,
                **details,
            ),
        )
        check_example(example, "\n".join(line for _, line in done.kept()))
        return example


def check_example(example: ChunkExample, wanted: str) -> None:
    """Refuses an example whose program is not right, or does not lead to the wanted text.

    Raises:
        RejectedError: ``invalid_program`` or ``execution_differs``.
    """
    fault = program_fault(example)
    if fault:
        raise RejectedError("invalid_program", fault)
    left = executed(example)
    if left != (wanted if wanted.strip() else ""):
        raise RejectedError("execution_differs", f"strict mode leaves {len(left)} characters, expected {len(wanted)}")
