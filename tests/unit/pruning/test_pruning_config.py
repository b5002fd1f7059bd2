import pytest

from corpusmill.errors import ConfigError
from corpusmill.pruning.config import ScoringConfig, SelectionConfig


@pytest.mark.parametrize("value", ["1.5", "-1/10", "a third", "1/0", ""])
def test_a_fraction_that_is_none_is_named(value):
    with pytest.raises(ConfigError, match="fraction"):
        SelectionConfig.load({"fraction": value})


def test_equal_fractions_have_equal_fingerprints():
    spellings = ["3/10", "0.3", "0.30", "6/20"]
    assert len({SelectionConfig.load({"fraction": s}).fingerprint() for s in spellings}) == 1


def test_cutoffs_and_their_mode_belong_together():
    with pytest.raises(ConfigError, match="needs a manifest"):
        SelectionConfig.load({"mode": "cutoffs"})
    with pytest.raises(ConfigError, match="others take none"):
        SelectionConfig.load({"mode": "rank", "cutoffs": "x.json"})


def test_scoring_settings_are_checked():
    with pytest.raises(ConfigError, match="asks for no score"):
        ScoringConfig.load({"metrics": []})
    with pytest.raises(ConfigError, match="do not fit in a context of 60"):
        ScoringConfig.load({"metrics": ["memorization"], "context": 60})
    with pytest.raises(ConfigError, match="fraction_of"):
        ScoringConfig.load({"fraction_of": 1})
