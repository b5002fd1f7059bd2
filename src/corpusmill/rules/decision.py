"""The decision on a document from its stored measures: no text is needed to take it again."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import Any, NamedTuple

from corpusmill.rules.config import RulesConfig
from corpusmill.rules.presets import Preset, Rule

NOT_IDENTIFIED = "language.not_identified"
NOT_WANTED = "language.not_wanted"
LOW_SCORE = "language.low_score"
LANGUAGE_REASONS = (NOT_IDENTIFIED, NOT_WANTED, LOW_SCORE)
"""Reasons of the language rules, whose values are ``languages`` and ``min_language_score``."""


class Decision(NamedTuple):
    """Whether a document is kept, and the first reason why not (None if kept)."""

    kept: bool
    reason: str | None


def decide(measures: Mapping[str, Any], config: RulesConfig) -> Decision:
    """Returns the decision on a document: the first rule in the preset's order that its measures fail.

    Rows with a reason ``error.*`` hold no complete measures; do not decide on them again.

    Args:
        measures: A row of ``documents``: ``language``, ``language_score`` and the columns of `RULE_MEASURES`.
        config: Settings; thresholds may differ from those that were measured with, C4's line rules may not.
    """
    return decide_with(measures, config, config.resolved())


def decide_with(measures: Mapping[str, Any], config: RulesConfig, preset: Preset) -> Decision:
    """Returns the decision as `decide`, for a preset that was resolved before."""
    reason = next(_reasons(measures, config, preset), None)
    return Decision(reason is None, reason)


def first_reason(rules: Iterable[Rule], measures: Mapping[str, Any]) -> str | None:
    """Returns the reason of the first rule of one set that the measures fail, None if they pass all of them."""
    hits = [rule for rule in rules if rule.hits(measures[rule.measure])]
    hits.sort(key=lambda rule: measures[rule.measure] if rule.earliest_wins else float("inf"))
    return hits[0].reason if hits else None


def _reasons(measures: Mapping[str, Any], config: RulesConfig, preset: Preset) -> Iterator[str]:
    """Yields reasons in the order in which rules are asked: URL, language, then the preset's."""
    asked_language = False
    for rule_set, rules in groupby(preset.rules, key=lambda rule: rule.rule_set):
        if rule_set != "url" and not asked_language:
            asked_language = True
            yield from _language_reasons(measures, config)
        reason = first_reason(rules, measures)
        if reason is not None:
            yield reason
    if not asked_language:
        yield from _language_reasons(measures, config)


def _language_reasons(measures: Mapping[str, Any], config: RulesConfig) -> Iterator[str]:
    """Yields why the language is not accepted: unknown, not wanted, or wanted with too low a score."""
    if config.languages is None and config.min_language_score is None:
        return
    language, minimum = measures["language"], config.min_language_score
    if language is None:
        yield NOT_IDENTIFIED
    elif config.languages is None or language in config.languages:
        if minimum is not None and not measures["language_score"] > minimum:
            yield LOW_SCORE
    elif minimum is None or not (measures["language_wanted_score"] or 0.0) > minimum:
        yield NOT_WANTED
