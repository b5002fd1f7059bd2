"""Stored rows are decided again as if their pages had been measured anew."""

import pyarrow as pa
import pytest

from corpusmill.rules.config import RulesConfig
from corpusmill.rules.stage import CleanStage

GOOD = (
    "The harbour master wrote down every ship that came in with the tide and all that left. He had done so for forty "
    "years, and his books filled the shelves of the old customs house. Nobody had asked him to keep them. "
)
MORE = (
    "When winter froze the basin he counted sledges instead.\nA clerk from the capital once read three volumes"
    " and went away silent. The fishermen believed that a name in those pages kept a boat from sinking.\nTwo "
    "wars passed over the town without burning a single leaf of paper. His daughter learned to spell from "
    "lists of cargo: tar, rope, lemons, rye.\nLater she sorted the books by wind rather than by year, which "
    "puzzled everyone except her father. Storms from the west fill eleven shelves.\nThe calm days fit into one"
    " thin notebook that has lost its cover. "
)
PAGES = {
    "long": GOOD + MORE,
    "mail": MORE + "Write to clerk@example.org about any entry, and be patient.",
    "short": GOOD + "He wrote on.\nThe sea was calm. The lamp burned low.",
    "brief": GOOD,
    "german": "Der Hafenmeister schrieb jedes Schiff auf, das mit der Flut kam, und jedes, das wieder ging. " * 4,
    "empty": "",
    "repeated": "The lamp burned low and the sea was calm.\n" * 40,
}
BASE = {"languages": ("en",)}
TIGHTER = {**BASE, "overrides": {"gopher_quality.short_doc": 120.0}}
LOOSER = {
    **BASE,
    "min_language_score": 0.1,
    "overrides": {"gopher_quality.short_doc": 5.0, "c4.too_few_sentences": None},
}


def batch():
    n = len(PAGES)
    columns = {
        "crawl": ["C"] * n,
        "doc_id": list(PAGES),
        "url": ["https://harbour.example/"] * n,
        "warc_file": ["w"] * n,
    }
    return pa.table({**columns, "text": pa.array(list(PAGES.values()), pa.large_string())})


class Rows:
    def __init__(self, *parts):
        self.rows = {row["doc_id"]: row for part in parts for row in part.to_pylist()}

    def find(self, key):
        return self.rows.get(key)


def cleaned(settings, stored=None):
    return CleanStage(RulesConfig.load(settings), stored).process(batch())


@pytest.fixture(scope="module")
def runs():
    return {name: cleaned(s) for name, s in (("base", BASE), ("tighter", TIGHTER), ("looser", LOOSER))}


@pytest.mark.parametrize("old", ["base", "tighter", "looser"])
@pytest.mark.parametrize(("new", "settings"), [("base", BASE), ("tighter", TIGHTER), ("looser", LOOSER)])
def test_every_row_is_that_of_a_fresh_run(runs, old, new, settings):
    stored = Rows(runs[old].kept, runs[old].removed)
    again = cleaned(settings, stored)
    assert again.kept.equals(runs[new].kept)
    assert again.removed.equals(runs[new].removed)


def test_the_settings_move_decisions_both_ways(runs):
    kept = {name: set(out.kept["doc_id"].to_pylist()) for name, out in runs.items()}
    assert kept["tighter"] < kept["base"] < kept["looser"]


def test_only_admitted_and_unmasked_documents_are_measured(runs):
    again = cleaned(LOOSER, Rows(runs["base"].kept, runs["base"].removed))
    admitted = set(runs["looser"].kept["doc_id"].to_pylist()) - set(runs["base"].kept["doc_id"].to_pylist())
    assert again.metrics["n_measured"] == len(admitted) > 0
    same = CleanStage(RulesConfig.load(BASE), Rows(runs["base"].kept, runs["base"].removed))
    same.setup()
    assert same.process(batch()).metrics["n_measured"] == 0
    assert not same._ready, "nothing was loaded"


def test_rows_with_an_error_are_measured_again(runs):
    rows = Rows(runs["base"].kept, runs["base"].removed)
    rows.rows["brief"] = {**rows.rows["brief"], "drop_reason": "error.language", "language": None}
    again = cleaned(BASE, rows)
    assert again.metrics["n_measured"] == 1
    assert again.removed.equals(runs["base"].removed)


def test_what_measures_is_told_from_what_decides():
    base = RulesConfig.load(BASE).measure_fingerprint()
    for thresholds in (TIGHTER, LOOSER, {**BASE, "engine": "compiled"}, {**BASE, "max_error_fraction": 0.5}):
        assert RulesConfig.load(thresholds).measure_fingerprint() == base
    for measuring in (
        {"languages": ("en", "de")},
        {**BASE, "pii": False},
        {**BASE, "preset": "gopher"},
        {**BASE, "overrides": {"c4.line_few_words": 7.0}},
        {**BASE, "english_rules": "all"},
        {**BASE, "language_max_chars": 500},
    ):
        assert RulesConfig.load(measuring).measure_fingerprint() != base, measuring
