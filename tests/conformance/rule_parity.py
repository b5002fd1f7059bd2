"""Our verdicts in the shape of the oracle's, and the mapping of reasons. Not a test; see test_rules_parity.py."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from corpusmill.rules import c4, fineweb, gopher_quality, gopher_repetition, pii, presets
from corpusmill.rules.c4 import LineRules
from corpusmill.rules.config import RulesConfig
from corpusmill.rules.decision import first_reason
from corpusmill.rules.language import LanguageIdentifier
from corpusmill.rules.segment import Segmenter
from corpusmill.rules.stage import CleanStage
from corpusmill.rules.url import UrlRules

DATATROVE_REASONS = {
    "gopher_repetition.empty": "empty",
    "gopher_repetition.dup_para_frac": "dup_para_frac",
    "gopher_repetition.dup_para_char_frac": "dup_para_char_frac",
    "gopher_repetition.dup_line_frac": "dup_line_frac",
    "gopher_repetition.dup_line_char_frac": "dup_line_char_frac",
    **{f"gopher_repetition.top_{n}_gram": f"top_{n}_gram" for n in (2, 3, 4)},
    **{f"gopher_repetition.dup_{n}_grams": f"duplicated_{n}_n_grams" for n in range(5, 11)},
    "gopher_quality.short_doc": "gopher_short_doc",
    "gopher_quality.long_doc": "gopher_long_doc",
    "gopher_quality.short_words": "gopher_below_avg_threshold",
    "gopher_quality.long_words": "gopher_above_avg_threshold",
    "gopher_quality.too_many_hashes": "gopher_too_many_hashes",
    "gopher_quality.too_many_ellipses": "gopher_too_many_ellipsis",
    "gopher_quality.too_many_bullets": "gopher_too_many_bullets",
    "gopher_quality.too_many_end_ellipses": "gopher_too_many_end_ellipsis",
    "gopher_quality.too_few_alpha_words": "gopher_below_alpha_threshold",
    "gopher_quality.too_few_stop_words": "gopher_enough_stop_words",
    "c4.lorem_ipsum": "lorem_ipsum",
    "c4.curly_bracket": "curly_bracket",
    "c4.too_few_sentences": "too_few_sentences",
    "fineweb.empty": "empty",
    "fineweb.line_punct_ratio": "line_punct_ratio",
    "fineweb.short_line_ratio": "short_line_ratio",
    "fineweb.char_dup_ratio": "char_dup_ratio",
    "fineweb.list_ratio": "list_ratio",
    "url.domain": "domain",
    "url.host": "subdomain",
    "url.exact": "url",
    "url.banned_word": "hard_blacklisted",
    "url.soft_banned_words": "soft_blacklisted",
    "url.banned_subword": "blacklisted_subword",
}
"""Our reason: datatrove's. LanguageFilter and PIIFormatter have no reasons."""

# A chain of the text rules alone: language and URL have tests of their own.
CHAIN = RulesConfig(preset="fineweb", english_rules="all", languages=None, min_language_score=None, pii=False)


def digest(text: str) -> str:
    """Returns 16 hex digits over a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


class Ours:
    """Our rules asked as the oracle asks datatrove's filters."""

    def __init__(self) -> None:
        self.segmenter = Segmenter()
        self.languages = LanguageIdentifier()
        self.stage = CleanStage(CHAIN)
        self.stage.setup()

    def judge(self, text: str) -> dict[str, Any]:
        """Returns the verdicts on a text, with the keys of the oracle."""
        words = self.segmenter.words(text)
        measures: dict[str, float | None] = {
            **gopher_repetition.line_measures(text),
            **gopher_repetition.n_gram_measures(text, words.words),
            **gopher_quality.line_measures(text),
            **gopher_quality.word_measures(text, words),
            **fineweb.line_measures(text),
            **fineweb.word_measures(text, len(words.words)),
        }
        language = self.languages.identify(text, {"en"})
        result: dict[str, Any] = {
            "words": digest("\n".join(words.words)),
            "sentences": self.segmenter.n_sentences(text),
            "measures": measures,
            "gopher_repetition": as_datatrove(first_reason(presets.GOPHER_REPETITION, measures)),
            "gopher_quality": as_datatrove(first_reason(presets.GOPHER_QUALITY, measures)),
            "fineweb": as_datatrove(first_reason(presets.FINEWEB_RULES, measures)),
            "emails": pii.email_spans(text),
            "addresses": pii.ip_spans(text),
            "language_kept": (language.wanted_score or 0.0) > 0.65,
            "language": [language.language, None if language.score is None else round(language.score, 4)],
        }
        for name, end_punctuation in (("c4", True), ("c4_nopunct", False)):
            rules = LineRules(need_end_punctuation=end_punctuation)
            rewritten = c4.rewrite(text, rules, self.segmenter.n_sentences)
            reason = first_reason(presets.C4_RULES, rewritten.measures)
            result[name] = as_datatrove(reason)
            result[f"{name}_text"] = digest(text if reason else rewritten.text)
        result |= self._chain(text)
        return result

    def _chain(self, text: str) -> dict[str, Any]:
        document = self.stage.measure(text)
        assert document.error is None, document.error
        decision = self.stage.decide({**document.measures, "language": "en", "language_score": 1.0})
        # the reference rewrites a text only where C4 keeps it
        rewritten = decision.kept or (decision.reason or "").startswith("fineweb.")
        return {"chain": as_datatrove(decision.reason), "chain_text": digest(document.text if rewritten else text)}


def as_datatrove(reason: str | None) -> str:
    """Returns "keep", or "drop:" and datatrove's name of our reason."""
    return "keep" if reason is None else f"drop:{DATATROVE_REASONS[reason]}"


def judge_url(rules: UrlRules, url: str) -> str:
    """Returns the verdict on a URL."""
    return as_datatrove(first_reason(presets.URL, rules.measure(url)))


def compact(verdict: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a verdict in the golden file's form: measures and spans as one digest each."""
    measures = {k: v for k, v in sorted(verdict["measures"].items()) if v is not None and k not in OURS_ONLY}
    spans = [[list(span) for span in verdict[name]] for name in ("emails", "addresses")]
    short = {k: verdict[k] for k in KEYS}
    short["language"] = "|".join(map(str, verdict["language"]))
    short["measures"] = digest(json.dumps(measures))
    short["pii"] = digest(json.dumps(spans))
    return short


OURS_ONLY = frozenset({"gopher_repetition_n_chars", "fineweb_n_lines"})
KEYS = (
    "words",
    "sentences",
    "gopher_repetition",
    "gopher_quality",
    "fineweb",
    "c4",
    "c4_text",
    "c4_nopunct",
    "c4_nopunct_text",
    "chain",
    "chain_text",
    "language_kept",
)


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Returns the keys on which two compact verdicts differ.

    Where the reference raises instead of deciding, ours only has to decide. A text without visible characters has
    no language for us; the reference gives it its prior's. Both keep it out.
    """
    found = []
    for key, value in theirs.items():
        if isinstance(value, str) and value.startswith("raise:"):
            continue
        if key == "language" and ours[key] == "None|None" and not theirs["language_kept"]:
            continue
        if key == "chain_text" and str(theirs["chain"]).startswith("raise:"):
            continue
        if ours[key] != value:
            found.append(key)
    return found
