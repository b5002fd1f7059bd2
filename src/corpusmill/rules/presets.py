"""Named rule sets as data: every threshold with its source, in published order.

A rule compares one stored measure with one threshold, so that a decision can be taken again from the stored measures.
All comparisons are strict. The names of rules are reasons in tables and reports: they are never renamed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from corpusmill.errors import ConfigError
from corpusmill.rules.c4 import LineRules

GOPHER = "Rae et al. 2021 (Gopher), arXiv 2112.11446, appendix A.1.1"
C4 = "Raffel et al. 2020 (C4), JMLR 21/140, section 2.2"
FINEWEB = "Penedo et al. 2024 (FineWeb), arXiv 2406.17557, section 3.6"
REFINEDWEB = "Penedo et al. 2023 (RefinedWeb), arXiv 2306.01116, appendix G.1"
CLEANUP = "ours: a document without text has no value"


@dataclass(frozen=True)
class Rule:
    """One reason to remove a document.

    Attributes:
        reason: ``rule_set.rule``.
        measure: Column whose value decides; null never removes.
        drop: Remove if the value is below or above the threshold (strictly).
        threshold: The published value; None: off.
        source: Where the threshold was published.
        every_language: True where the rule holds for every language, False for English only.
        earliest_wins: Among the rules of its set marked so, the one with the lowest value gives the reason.
    """

    reason: str
    measure: str
    drop: Literal["below", "above"]
    threshold: float | None
    source: str
    every_language: bool = False
    earliest_wins: bool = False

    @property
    def rule_set(self) -> str:
        """The part of the reason before the dot."""
        return self.reason.partition(".")[0]

    def hits(self, value: float | None) -> bool:
        """Returns whether a stored measure removes the document."""
        if value is None or self.threshold is None:
            return False
        return value < self.threshold if self.drop == "below" else value > self.threshold


URL = (
    Rule("url.domain", "url_domain_listed", "above", 0, REFINEDWEB, every_language=True),
    Rule("url.host", "url_host_listed", "above", 0, REFINEDWEB, every_language=True),
    Rule("url.exact", "url_listed", "above", 0, REFINEDWEB, every_language=True),
    Rule("url.banned_word", "url_n_banned_words", "above", 0, REFINEDWEB, every_language=True),
    Rule("url.soft_banned_words", "url_n_soft_banned_words", "above", 1, REFINEDWEB, every_language=True),
    Rule("url.banned_subword", "url_n_banned_subwords", "above", 0, REFINEDWEB, every_language=True),
)

GOPHER_REPETITION = (
    Rule("gopher_repetition.empty", "gopher_repetition_n_chars", "below", 1, CLEANUP, every_language=True),
    Rule("gopher_repetition.dup_para_frac", "gopher_repetition_dup_para_frac", "above", 0.3, GOPHER, True),
    Rule("gopher_repetition.dup_para_char_frac", "gopher_repetition_dup_para_char_frac", "above", 0.2, GOPHER, True),
    Rule("gopher_repetition.dup_line_frac", "gopher_repetition_dup_line_frac", "above", 0.3, GOPHER, True),
    Rule("gopher_repetition.dup_line_char_frac", "gopher_repetition_dup_line_char_frac", "above", 0.2, GOPHER, True),
    *(
        Rule(f"gopher_repetition.top_{n}_gram", f"gopher_repetition_top_{n}_gram", "above", share, GOPHER)
        for n, share in ((2, 0.20), (3, 0.18), (4, 0.16))
    ),
    *(
        Rule(f"gopher_repetition.dup_{n}_grams", f"gopher_repetition_dup_{n}_grams", "above", share, GOPHER)
        for n, share in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))
    ),
)

GOPHER_QUALITY = (
    Rule("gopher_quality.short_doc", "gopher_quality_n_words", "below", 50, GOPHER),
    Rule("gopher_quality.long_doc", "gopher_quality_n_words", "above", 100_000, GOPHER),
    Rule("gopher_quality.short_words", "gopher_quality_mean_word_length", "below", 3, GOPHER),
    Rule("gopher_quality.long_words", "gopher_quality_mean_word_length", "above", 10, GOPHER),
    Rule("gopher_quality.too_many_hashes", "gopher_quality_hash_ratio", "above", 0.1, GOPHER),
    Rule("gopher_quality.too_many_ellipses", "gopher_quality_ellipsis_ratio", "above", 0.1, GOPHER),
    Rule("gopher_quality.too_many_bullets", "gopher_quality_bullet_line_ratio", "above", 0.9, GOPHER, True),
    Rule("gopher_quality.too_many_end_ellipses", "gopher_quality_end_ellipsis_line_ratio", "above", 0.3, GOPHER, True),
    Rule("gopher_quality.too_few_alpha_words", "gopher_quality_alpha_word_ratio", "below", 0.8, GOPHER),
    Rule("gopher_quality.too_few_stop_words", "gopher_quality_n_stop_words", "below", 2, GOPHER),
)

C4_RULES = (
    Rule("c4.lorem_ipsum", "c4_lorem_ipsum_line", "above", 0, C4, earliest_wins=True),
    Rule("c4.curly_bracket", "c4_curly_bracket_line", "above", 0, C4, earliest_wins=True),
    Rule("c4.too_few_sentences", "c4_n_sentences", "below", 5, C4),
)
C4_BAD_WORDS = Rule("c4.bad_words", "c4_n_bad_words", "above", 0, C4, every_language=True)

# For char_dup_ratio two values circulate: the paper's text has 0.1, datatrove's code and its FineWeb example 0.01.
FINEWEB_RULES = (
    Rule("fineweb.empty", "fineweb_n_lines", "below", 1, CLEANUP, every_language=True),
    Rule("fineweb.line_punct_ratio", "fineweb_line_punct_ratio", "below", 0.12, FINEWEB),
    Rule("fineweb.short_line_ratio", "fineweb_short_line_ratio", "above", 0.67, FINEWEB),
    Rule("fineweb.char_dup_ratio", "fineweb_char_dup_ratio", "above", 0.01, FINEWEB, every_language=True),
    Rule("fineweb.list_ratio", "fineweb_list_ratio", "above", 0.3, FINEWEB),
)


@dataclass(frozen=True)
class Preset:
    """Rules in the order in which they are asked.

    Attributes:
        name: Name in recipes.
        description: What it reproduces.
        rules: The rules; those of one set stand together. URL rules stand first; the language rules, whose values
            are settings of their own, come after them.
        c4_lines: C4's line rules; None where the preset does not rewrite text.
    """

    name: str
    description: str
    rules: tuple[Rule, ...]
    c4_lines: LineRules | None = None

    @property
    def rule_sets(self) -> tuple[str, ...]:
        """Names of the rule sets, in order."""
        return tuple(dict.fromkeys(rule.rule_set for rule in self.rules))


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            "fineweb",
            "FineWeb's pipeline: Gopher repetition, Gopher quality, C4 without its end-punctuation rule, FineWeb's "
            "rules (datatrove examples/fineweb.py)",
            (*URL, *GOPHER_REPETITION, *GOPHER_QUALITY, *C4_RULES, *FINEWEB_RULES),
            LineRules(need_end_punctuation=False),
        ),
        Preset("c4", "C4 with its bad-word list where one is given", (*URL, *C4_RULES, C4_BAD_WORDS), LineRules()),
        Preset(
            "gopher",
            "MassiveText's quality and repetition filters, in the paper's order",
            (*URL, *GOPHER_QUALITY, *GOPHER_REPETITION),
        ),
        Preset("fineweb_rules", "FineWeb's own four rules alone", (*URL, *FINEWEB_RULES)),
        Preset(
            "gopher_c4_fineweb",
            "All rules with C4 as published; the combination that ProX compares with (arXiv 2409.17115, table 2); "
            "ProX does not print its order, this one is FineWeb's",
            (*URL, *GOPHER_REPETITION, *GOPHER_QUALITY, *C4_RULES, *FINEWEB_RULES),
            LineRules(),
        ),
        Preset("none", "URL lists, language and masking only", URL),
    )
}

_LINE_NUMBERS = {"c4.line_long_word": "max_word_length", "c4.line_few_words": "min_words"}
_LINE_SWITCHES = {
    "c4.line_citations": "remove_citations",
    "c4.line_no_end_punctuation": "need_end_punctuation",
    "c4.line_javascript": "remove_javascript",
    "c4.line_policy": "remove_policy",
}


def resolve_preset(name: str, overrides: Mapping[str, float | None]) -> Preset:
    """Returns a preset with some thresholds replaced.

    Args:
        name: One of `PRESETS`.
        overrides: Threshold by reason, None switches the rule off. C4's line rules are ``c4.line_long_word``,
            ``c4.line_few_words`` (numbers) and ``c4.line_citations``, ``c4.line_no_end_punctuation``,
            ``c4.line_javascript``, ``c4.line_policy`` (None: off, any number: on).

    Raises:
        ConfigError: The preset is unknown, or has no rule of an overridden name.
    """
    if name not in PRESETS:
        raise ConfigError(f"preset={name!r} is not known; expected one of {sorted(PRESETS)}")
    preset = PRESETS[name]
    known = {rule.reason for rule in preset.rules}
    if preset.c4_lines is not None:
        known |= _LINE_NUMBERS.keys() | _LINE_SWITCHES.keys()
    if unknown := sorted(set(overrides) - known):
        raise ConfigError(f"overrides {unknown} are no rules of preset {name!r}; expected some of {sorted(known)}")
    rules = tuple(
        replace(rule, threshold=overrides[rule.reason]) if rule.reason in overrides else rule for rule in preset.rules
    )
    return replace(preset, rules=rules, c4_lines=_lines(preset.c4_lines, overrides))


def _lines(lines: LineRules | None, overrides: Mapping[str, float | None]) -> LineRules | None:
    if lines is None:
        return None
    numbers = {field: overrides[key] for key, field in _LINE_NUMBERS.items() if key in overrides}
    switches = {field: overrides[key] is not None for key, field in _LINE_SWITCHES.items() if key in overrides}
    return replace(lines, **numbers, **switches)  # type: ignore[arg-type]  # mypy cannot see which field gets which
