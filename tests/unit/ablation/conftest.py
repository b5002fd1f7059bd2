"""A prepared pool of three minutes of reading, and a tiny student, for the tests of training and of the steps."""

import pytest

from corpusmill.ablation.config import parse_ablation

RECIPE = {
    "name": "small",
    "pool": {"files": ["bundled:texts"], "noise": {}, "n_vocab": 400, "max_documents": 24},
    "references": {"clean": {"corpus": "clean", "preset": "test", "steps": 6, "n_vocab": 400, "batch_size": 4}},
    "random": [0.5],
    "scores": [{"references": ["clean"], "columns": ["bits_per_byte"], "which": ["bottom"], "fractions": [0.5]}],
    "measures": {"minimal_pairs": []},
}


@pytest.fixture
def recipe():
    """Returns a function that gives the small recipe as JSON values, with other values where given."""

    def make(**changes):
        return parse_ablation({**RECIPE, **changes}).model_dump(mode="json")

    return make
