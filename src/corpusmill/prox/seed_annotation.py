"""Asks a teacher about seed documents, resumably: every answer is stored the moment it is there.

A kill loses the answers in flight and nothing else; a second run asks what is missing. Questions that fail for good are
stored as failures and not asked again, unless the settings say so. A teacher that does not answer now, or refuses
everybody, ends the run with an error; what it answered before is kept.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from itertools import islice

from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.prox.annotation_config import AnnotationConfig, TeacherConfig
from corpusmill.prox.annotation_prompts import PARTS, Request, all_requests, prompt_version
from corpusmill.prox.annotator import Answer, Teacher
from corpusmill.prox.answer_store import AnswerStore, StoredAnswer
from corpusmill.prox.seed_document import SeedDocument
from corpusmill.prox.training_examples import Route

MAX_ANSWER = 1_000_000
"""Characters of an answer that is stored; a longer one is a failure."""
_REPORT_EVERY = 100
_CERTAIN = 20
"""Failures from which on a run ends early when they are more than half of what it asked."""


@dataclass(frozen=True)
class AnnotationReport:
    """What annotation did, and what all answers of the store cost together.

    Attributes:
        n_documents: Documents given.
        n_unasked: Documents about which nothing can be asked (empty, too long).
        n_requests: Questions that they need.
        n_reused: Questions whose answers were there before.
        n_asked: Questions asked by this run.
        n_failed: Questions of these documents that failed for good, in this or an earlier run.
        n_retries: Requests that were sent again in this run.
        prompt_tokens: Tokens of all questions of the store.
        completion_tokens: Tokens of all answers of the store.
        cost: Their price; None where the settings name no price.
    """

    n_documents: int
    n_unasked: int
    n_requests: int
    n_reused: int
    n_asked: int
    n_failed: int
    n_retries: int
    prompt_tokens: int
    completion_tokens: int
    cost: float | None


def annotate(
    documents: Iterable[SeedDocument],
    route: Route,
    teacher: Teacher | None,
    store: AnswerStore,
    config: AnnotationConfig,
    progress: Callable[[str], None] = lambda _: None,
    *,
    prices: TeacherConfig | None = None,
) -> AnnotationReport:
    """Asks everything that a route needs to know about the documents and is not in the store yet.

    Args:
        documents: Seed documents of one shard.
        route: A route without questions (``gold``, ``extractor``) asks nothing and needs no teacher.
        teacher: Who is asked.
        store: Where answers are kept; also that of an earlier run.
        config: Domain and windows.
        progress: Called with one line of text for every hundred answers.
        prices: Settings with prices a million tokens; None reports no cost.

    Raises:
        ConfigError: The route needs a teacher and there is none, or the teacher refuses everybody.
        TransientDataError: The teacher does not answer now; what it answered is stored.
        PermanentDataError: More questions failed for good than ``max_error_fraction`` allows.
    """
    if teacher is None and PARTS[route]:
        raise ConfigError(f"route={route!r} asks a teacher and there is none; give one, or use 'gold' or 'extractor'")
    run = _Run(route, teacher.name if teacher else "", store, config, progress)
    before = teacher.n_retries if teacher else 0
    if teacher is not None:
        run.ask_all(teacher, run.missing(documents))
    else:
        run.n_documents = sum(1 for _ in documents)
    report = run.report((teacher.n_retries if teacher else 0) - before, prices)
    if report.n_failed > config.max_error_fraction * report.n_requests:
        raise PermanentDataError(
            f"{report.n_failed} of {report.n_requests} questions failed for good, more than "
            f"max_error_fraction={config.max_error_fraction} allows; first failures: {run.failures[:3]}. Mend the "
            "cause and set retry_failed, or raise the limit"
        )
    return report


class _Run:
    """One run over one shard: what it counts."""

    def __init__(
        self, route: Route, teacher: str, store: AnswerStore, config: AnnotationConfig, progress: Callable[[str], None]
    ) -> None:
        self.route, self.teacher, self.store, self.config, self.progress = route, teacher, store, config, progress
        self.version = prompt_version(route, config.domain)
        self.n_documents = self.n_unasked = self.n_requests = self.n_asked = self.n_failed_now = 0
        self.failures: list[str] = []
        self.n_failed = 0

    def missing(self, documents: Iterable[SeedDocument]) -> Iterator[tuple[str, Request]]:
        """Yields the questions that have no answer yet, each once, with their keys."""
        seen: set[str] = set()
        for document in documents:
            self.n_documents += 1
            requests = list(all_requests([document], self.route, self.config))
            self.n_unasked += not requests
            for request in requests:
                key = request.key(self.version, self.teacher)
                if key in seen:
                    continue
                seen.add(key)
                self.n_requests += 1
                known = self.store.get(key)
                if known is None or (known.error and self.config.retry_failed):
                    yield key, request
                elif known.error:
                    self._failed(known.error)

    def ask_all(self, teacher: Teacher, missing: Iterator[tuple[str, Request]]) -> None:
        """Asks with as many calls at once as the teacher takes, and stores answers as they come."""
        flying: dict[Future[list[Answer | Exception]], tuple[tuple[str, Request], ...]] = {}
        with ThreadPoolExecutor(max(1, teacher.concurrency)) as pool:
            try:
                while True:
                    while len(flying) < teacher.concurrency and (batch := (*islice(missing, teacher.batch_requests),)):
                        flying[pool.submit(teacher.ask, [request.conversation for _, request in batch])] = batch
                    if not flying:
                        return
                    done, _ = wait(flying, return_when=FIRST_COMPLETED)
                    for future in done:
                        self._store(flying.pop(future), future.result())
            finally:
                self._store_finished(flying)

    def _store_finished(self, flying: dict[Future[list[Answer | Exception]], tuple[tuple[str, Request], ...]]) -> None:
        """Keeps what was still in flight when a fault ended the run: it is paid for."""
        for future, batch in flying.items():
            if not future.cancel() and future.exception() is None:
                self._store(batch, future.result(), may_stop=False)

    def _store(
        self, batch: tuple[tuple[str, Request], ...], answers: list[Answer | Exception], *, may_stop: bool = True
    ) -> None:
        for (key, request), answer in zip(batch, answers, strict=True):
            row = self._row(key, request, answer)
            self.store.append(row)
            self.n_asked += 1
            if row.error:
                self.n_failed_now += 1
                self._failed(row.error)
            if self.n_asked % _REPORT_EVERY == 0:
                self.progress(f"{self.n_asked} questions asked, {self.n_failed_now} failed, route {self.route}")
        if may_stop and self.n_failed_now >= _CERTAIN and 2 * self.n_failed_now > self.n_asked:
            raise PermanentDataError(
                f"{self.n_failed_now} of the first {self.n_asked} questions failed for good; first failures: "
                f"{self.failures[:3]}. Mend the cause and set retry_failed"
            )

    def _row(self, key: str, request: Request, answer: Answer | Exception) -> StoredAnswer:
        about = StoredAnswer(key, self.teacher, self.version, request.doc_id, request.part)
        if isinstance(answer, Exception):
            return replace(about, error=f"{type(answer).__name__}: {str(answer)[:500]}")
        about = replace(about, n_prompt_tokens=answer.n_prompt_tokens, n_completion_tokens=answer.n_completion_tokens)
        if len(answer.text) > MAX_ANSWER:
            return replace(about, error=f"an answer of {len(answer.text)} characters is over {MAX_ANSWER}")
        return replace(about, text=answer.text, finish_reason=answer.finish_reason)

    def _failed(self, error: str) -> None:
        self.n_failed += 1
        if len(self.failures) < 3:
            self.failures.append(error[:200])

    def report(self, n_retries: int, prices: TeacherConfig | None) -> AnnotationReport:
        """Returns the counts of this run and the cost of the whole store."""
        rows = list(self.store.answers())
        n_prompt, n_new = sum(r.n_prompt_tokens for r in rows), sum(r.n_completion_tokens for r in rows)
        return AnnotationReport(
            n_documents=self.n_documents,
            n_unasked=self.n_unasked,
            n_requests=self.n_requests,
            n_reused=self.n_requests - self.n_asked,
            n_asked=self.n_asked,
            n_failed=self.n_failed,
            n_retries=n_retries,
            prompt_tokens=n_prompt,
            completion_tokens=n_new,
            cost=price(n_prompt, n_new, prices),
        )


def price(n_prompt: int, n_new: int, prices: TeacherConfig | None) -> float | None:
    """Returns what tokens cost, None where the settings name no price."""
    if prices is None or (prices.prompt_price is None and prices.completion_price is None):
        return None
    return (n_prompt * (prices.prompt_price or 0.0) + n_new * (prices.completion_price or 0.0)) / 1e6
