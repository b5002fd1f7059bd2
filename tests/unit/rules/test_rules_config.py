"""Settings are checked when they are made, and presets hold the published thresholds."""

import subprocess
import sys

import pytest

from corpusmill.errors import ConfigError
from corpusmill.rules.config import RulesConfig
from corpusmill.rules.presets import PRESETS, resolve_preset
from corpusmill.schema import RULE_MEASURES


def test_unknown_presets_and_overrides_are_refused_with_what_is_known():
    with pytest.raises(ConfigError, match=r"preset='fine_web' is not known; expected one of \['c4', 'fineweb'"):
        RulesConfig.load({"preset": "fine_web"})
    with pytest.raises(ConfigError, match=r"overrides \['gopher.min_words'\] are no rules of preset 'fineweb'"):
        RulesConfig.load({"overrides": {"gopher.min_words": 3}})
    with pytest.raises(ConfigError, match=r"c4.line_policy"):
        RulesConfig.load({"preset": "gopher", "overrides": {"c4.line_policy": None}})


def test_an_override_replaces_one_threshold_and_none_switches_it_off():
    preset = resolve_preset(
        "fineweb", {"gopher_quality.short_doc": 30, "fineweb.list_ratio": None, "c4.line_few_words": 0}
    )
    thresholds = {rule.reason: rule.threshold for rule in preset.rules}
    assert thresholds["gopher_quality.short_doc"] == 30
    assert thresholds["fineweb.list_ratio"] is None
    assert thresholds["fineweb.char_dup_ratio"] == 0.01
    assert preset.c4_lines.min_words == 0
    assert preset.c4_lines.need_end_punctuation is False


def test_line_switches_turn_rules_on_and_off():
    preset = resolve_preset("fineweb", {"c4.line_no_end_punctuation": 1, "c4.line_javascript": None})
    assert preset.c4_lines.need_end_punctuation is True
    assert preset.c4_lines.remove_javascript is False


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_uses_stored_measures_and_unique_reasons_with_sources(name):
    preset = PRESETS[name]
    reasons = [rule.reason for rule in preset.rules]
    assert len(set(reasons)) == len(reasons)
    assert all(rule.measure in RULE_MEASURES and rule.source for rule in preset.rules)
    assert ("c4" in preset.rule_sets) == (preset.c4_lines is not None)


def test_fineweb_asks_in_the_published_order():
    wanted = ("url", "gopher_repetition", "gopher_quality", "c4", "fineweb")
    assert PRESETS["fineweb"].rule_sets == wanted


def test_zero_is_a_number_and_not_off():
    rule = resolve_preset("fineweb", {"gopher_quality.too_many_hashes": 0}).rules
    hashes = next(r for r in rule if r.reason == "gopher_quality.too_many_hashes")
    assert hashes.hits(0.001)
    assert not hashes.hits(0.0)
    assert not hashes.hits(None)


def test_settings_import_nothing_heavy():
    code = (
        "import sys, corpusmill.rules.config; "
        "bad = {'pyarrow', 'numpy', 'spacy', 'fasttext', 'pandas', 'tldextract'} & sys.modules.keys(); "
        "assert not bad, bad"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_equal_settings_have_equal_fingerprints_and_other_thresholds_another():
    assert RulesConfig().fingerprint() == RulesConfig(overrides={}).fingerprint()
    assert RulesConfig().fingerprint() != RulesConfig(overrides={"fineweb.list_ratio": 0.4}).fingerprint()
