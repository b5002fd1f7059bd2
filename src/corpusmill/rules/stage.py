"""The stage that measures every rule on every document, decides, and rewrites the text of kept documents.

Each rule set is measured on the text that it would see if all rule sets before it had kept the document: C4 rewrites
the text, so what comes after C4 in the preset sees the rewritten text. A document is measured to the end whatever its
first failing rule.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from corpusmill.batches import rows_to_table
from corpusmill.errors import ConfigError
from corpusmill.kernel_folder import cache_folder, compiling_rules, rules_are_compiled
from corpusmill.rules import bad_words, c4, fineweb, gopher_quality, gopher_repetition, pii
from corpusmill.rules.config import RulesConfig
from corpusmill.rules.decision import Decision, decide_with
from corpusmill.rules.language import ENGLISH, UNKNOWN_LANGUAGE, Identified, LanguageIdentifier
from corpusmill.rules.presets import Preset
from corpusmill.rules.redecide import StoredDocuments, redecided
from corpusmill.rules.segment import Segmenter, Words
from corpusmill.rules.url import UrlRules, load_url_rules
from corpusmill.schema import DOCUMENTS, RULE_MEASURES, text_digest
from corpusmill.stage import StageOutput

if TYPE_CHECKING:
    from corpusmill.rules.compiled.engine import CompiledRules

log = logging.getLogger(__name__)

WORTH_COMPILING = 20_000_000
"""Characters that the Python definitions measure in about the time that compiling the kernels takes, 45 CPU seconds."""
Measures = dict[str, float | None]


@dataclass
class Measured:
    """A document on its way through the rule sets.

    Attributes:
        text: The text as the next rule set sees it.
        identified: Its language.
        measures: Every measure so far; null where not defined.
        error: First rule set that failed on it, None if none did.
        words: Words of ``text``, once they are needed.
    """

    text: str
    identified: Identified = UNKNOWN_LANGUAGE
    measures: Measures = field(default_factory=lambda: dict.fromkeys(RULE_MEASURES))
    error: str | None = None
    words: Words | None = None


class CleanStage:
    """Rule cleaning: language, URL lists, heuristic rules, masking. See `RulesConfig` for what applies to whom.

    A rule that raises on a document removes it with the reason ``error.<rule set>``; its other measures are kept.

    Args:
        config: The settings.
        stored: Rows of the same pages to decide on again; None: every page is measured.
    """

    name = "clean"
    input_columns = ("crawl", "doc_id", "url", "warc_file", "text")
    output_schema: pa.Schema = DOCUMENTS.schema

    def __init__(self, config: RulesConfig, stored: StoredDocuments | None = None) -> None:
        self.config = config
        self._preset = config.resolved()
        self._stored = stored
        self._ready = False

    def setup(self) -> None:
        """Loads what measuring needs, unless it may turn out that nothing is measured.

        Raises:
            ConfigError: A model or list file is absent or has another digest, or ``engine`` is "compiled" and the
                kernels cannot be loaded.
        """
        if self._stored is None:
            self._load()

    def _load(self) -> None:
        """Loads the tokenizer, the language model and the lists."""
        config = self.config
        self._segmenter = Segmenter()
        self._language = LanguageIdentifier(
            config.language_model, config.language_max_chars, sample=config.language_text == "sample"
        )
        self._url: UrlRules | None = load_url_rules(config)
        self._bad_words = bad_words.load_bad_words(config.bad_words)
        self._wanted = None if config.languages is None else frozenset(config.languages)
        self._measurers: dict[str, Callable[[Measured], None]] = {
            "gopher_repetition": self._measure_gopher_repetition,
            "gopher_quality": self._measure_gopher_quality,
            "c4": self._measure_c4,
            "fineweb": self._measure_fineweb,
        }
        at_once = config.engine == "compiled" or (config.engine == "auto" and rules_are_compiled())
        self._compiled = self._kernels() if at_once else None
        self._until_compiled = WORTH_COMPILING if config.engine == "auto" and not at_once else math.inf
        self._ready = True

    def process(self, batch: pa.Table) -> StageOutput:
        """Returns kept and removed documents with all measures."""
        kept: list[dict[str, Any]] = []
        removed: list[dict[str, Any]] = []
        pages = batch.select(list(self.input_columns)).to_pylist()
        known = [self._redecided(page["doc_id"]) for page in pages]
        unknown = [page for page, row in zip(pages, known, strict=True) if row is None]
        measured = iter(self._measured_rows(unknown))
        for row in (found or next(measured) for found in known):
            (kept if row["kept"] else removed).append(row)
        metrics = {
            "n_pii": float(sum(row["n_pii"] for row in kept)),
            "n_errors": float(sum(1 for row in removed if row["drop_reason"].startswith("error."))),
            "n_measured": float(len(unknown)),
        }
        return StageOutput(
            kept=rows_to_table(kept, self.output_schema),
            removed=rows_to_table(removed, self.output_schema),
            metrics=metrics,
        )

    def measure(self, text: str, url: str = "") -> Measured:
        """Returns every measure of a document and its text as C4 rewrites it; never raises on any text."""
        if not self._ready:
            self._load()
        document = self._identify(text, url)
        self._measure_rule_sets(document)
        return document

    def _redecided(self, doc_id: str) -> dict[str, Any] | None:
        """Returns the row of a document that is stored and needs no measuring."""
        stored = None if self._stored is None else self._stored.find(doc_id)
        return None if stored is None else redecided(stored, self.config, self._preset)

    def _measured_rows(self, pages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Returns the rows of pages after measuring each."""
        if not pages:
            return []
        if not self._ready:
            self._load()
        return [self._document(page, doc) for page, doc in zip(pages, self._measure_all(pages), strict=True)]

    def _measure_all(self, pages: Sequence[Mapping[str, Any]]) -> list[Measured]:
        """Returns every measure of each page."""
        documents = [self._identify(page["text"], page["url"]) for page in pages]
        self._until_compiled -= sum(len(document.text) for document in documents)
        if self._until_compiled < 0:
            self._compiled, self._until_compiled = self._kernels(), math.inf
        if self._compiled is None:
            for document in documents:
                self._measure_rule_sets(document)
        else:
            self._measure_compiled(documents, self._compiled)
        return documents

    def _kernels(self) -> "CompiledRules | None":
        """Returns the kernels, or None where the Python definitions measure, as `_compiled_rules` says."""
        try:
            return _compiled_rules(self._preset)
        except (ImportError, RuntimeError, OSError) as error:  # no numba, or no folder that kernels can be kept in
            if self.config.engine == "compiled":
                raise ConfigError(
                    f"engine='compiled', but the kernels of the rules cannot be loaded: {error}; install "
                    f"corpusmill[crawl] and let {cache_folder()} (CORPUSMILL_HOME or NUMBA_CACHE_DIR) be written, or "
                    "take engine: python"
                ) from error
            log.warning("the Python definitions measure; the kernels of the rules cannot be loaded: %s", error)
            return None

    def _identify(self, text: str, url: str) -> Measured:
        """Returns a document with what its URL and its language say."""
        document = Measured(text)
        self._guard("url", document, lambda d: self._measure_url(d, url))
        self._guard("language", document, self._measure_language)
        return document

    def _measure_rule_sets(self, document: Measured) -> None:
        """Measures by the Python definitions."""
        for rule_set in self._preset.rule_sets:
            if rule_set in self._measurers:
                self._guard(rule_set, document, self._measurers[rule_set])

    def _measure_compiled(self, documents: Sequence[Measured], rules: "CompiledRules") -> None:
        """Measures by kernels, and by the Python definitions where a document is not for them."""
        texts = pa.array([document.text for document in documents], pa.large_string())
        rest = iter(documents)
        for group in rules.measure(texts, [self._is_english(document) for document in documents]):
            for k, usable in enumerate(group.usable):
                document = next(rest)
                if not usable:
                    self._measure_rule_sets(document)
                    continue
                document.measures.update(group.measures(k))
                document.text = group.text(k)
                if "c4" in self._preset.rule_sets:
                    self._guard("c4", document, self._measure_bad_words)

    def decide(self, measures: Mapping[str, Any]) -> Decision:
        """Returns the decision on stored measures under this stage's settings; see `corpusmill.rules.decision`."""
        return decide_with(measures, self.config, self._preset)

    def _document(self, page: dict[str, Any], document: Measured) -> dict[str, Any]:
        """Returns the row of one page that was measured."""
        language = {"language": document.identified.language, "language_score": document.identified.score}
        decision = self.decide({**document.measures, **language})
        n_pii = 0
        if decision.kept and document.error is None and self.config.pii:
            n_pii = self._mask(document)
        if document.error is not None:
            decision = Decision(False, f"error.{document.error}")
        row: dict[str, Any] = {
            **{name: page[name] for name in ("crawl", "doc_id", "url", "warc_file")},
            **language,
            **document.measures,
            "n_chars_raw": len(page["text"]),
            "n_chars": len(document.text),
            "n_pii": n_pii,
            "kept": decision.kept,
            "drop_reason": decision.reason,
        }
        if decision.kept:
            row["text"] = document.text
            row["dedup_digest"] = text_digest(" ".join(document.text.split()))
        return row

    def _guard(self, rule_set: str, document: Measured, measure: Callable[[Measured], None]) -> None:
        """Runs one rule set; a failure is recorded on the document."""
        try:
            measure(document)
        except MemoryError:
            raise
        except Exception:  # a tokenizer or model may raise anything on hostile text; it costs that text only
            log.debug("rule set %s failed on a document", rule_set, exc_info=True)
            document.error = document.error or rule_set

    def _mask(self, document: Measured) -> int:
        found = 0

        def run(measured: Measured) -> None:
            nonlocal found
            measured.text, found = pii.mask(measured.text)

        self._guard("pii", document, run)
        return found

    def _is_english(self, document: Measured) -> bool:
        """Returns whether English-only rules apply."""
        return self.config.english_rules == "all" or document.identified.language in ENGLISH

    def _words(self, document: Measured) -> Words:
        """Returns the words of the document's present text, tokenised once."""
        if document.words is None:
            document.words = self._segmenter.words(document.text)
        return document.words

    def _measure_url(self, document: Measured, url: str) -> None:
        if self._url is not None:
            document.measures.update(self._url.measure(url))

    def _measure_language(self, document: Measured) -> None:
        document.identified = self._language.identify(document.text, self._wanted)
        document.measures["language_wanted_score"] = document.identified.wanted_score

    def _measure_gopher_repetition(self, document: Measured) -> None:
        document.measures.update(gopher_repetition.line_measures(document.text))
        if self._is_english(document):
            words = self._words(document).words
            document.measures.update(gopher_repetition.n_gram_measures(document.text, words))

    def _measure_gopher_quality(self, document: Measured) -> None:
        document.measures.update(gopher_quality.line_measures(document.text))
        if self._is_english(document):
            document.measures.update(gopher_quality.word_measures(document.text, self._words(document)))

    def _measure_c4(self, document: Measured) -> None:
        lines = self._preset.c4_lines
        assert lines is not None, f"preset {self._preset.name!r} has C4 rules but no line rules"
        if self._is_english(document):
            rewritten = c4.rewrite(document.text, lines, self._segmenter.n_sentences)
            document.measures.update(rewritten.measures)
            if rewritten.text != document.text:
                document.text, document.words = rewritten.text, None
        self._measure_bad_words(document)

    def _measure_bad_words(self, document: Measured) -> None:
        if self._bad_words:
            pattern = self._bad_words.get(document.identified.language or "")
            document.measures.update(bad_words.measure(document.text, pattern))

    def _measure_fineweb(self, document: Measured) -> None:
        document.measures.update(fineweb.line_measures(document.text))
        if self._is_english(document):
            n_words = (
                len(document.words.words) if document.words is not None else self._segmenter.n_words(document.text)
            )
            document.measures.update(fineweb.word_measures(document.text, n_words))


_COMPILED_SETS = ("gopher_repetition", "gopher_quality", "c4", "fineweb")


def _compiled_rules(preset: Preset) -> "CompiledRules | None":
    """Returns the kernels, or None where the Python definitions measure.

    They do where the preset has no text rules or a set that has no kernel, and where its rule sets stand in an order in
    which C4 would rewrite the text of other rule sets than FineWeb's.
    """
    rule_sets = [name for name in preset.rule_sets if name in _COMPILED_SETS]
    late = {"c4", "fineweb"}
    in_order = sorted(rule_sets, key=lambda name: (name in late, name if name in late else "")) == rule_sets
    unknown = set(preset.rule_sets) - {*_COMPILED_SETS, "url"}
    if not rule_sets or not in_order or unknown:
        return None
    from corpusmill.rules.english_tokens import EnglishTokenizer

    with compiling_rules():
        from corpusmill.rules.compiled.chunk_lexicon import ChunkLexicon
        from corpusmill.rules.compiled.engine import CompiledRules
        from corpusmill.rules.compiled.stored_lexicon import load_shipped

    lexicon = ChunkLexicon(EnglishTokenizer())
    load_shipped(lexicon)
    return CompiledRules(rule_sets, preset.c4_lines, lexicon)
