"""The cross-validation benchmark: folds share no domain, pooled figures are those of all pages, killed runs go on."""

import gzip
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from corpusmill.prox.labelled_pages import LabelledPage
from corpusmill.prox.line_scores import micro_scores

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "refiner_cross_validation.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("refiner_cross_validation", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def make_rows(n=60):
    tiers = ("human", "reference", "silver")
    text = ["Home", "A sentence that says something, at last.", "Privacy"]
    return [
        {"doc_id": str(i), "domain": f"d{i % 40}", "tier": tiers[i % 3], "lines": text, "remove": [0, 2], "unsure": []}
        for i in range(n)
    ]


def test_folds_share_no_domain_and_test_every_page_of_people_once(benchmark):
    rows = make_rows()
    folds = benchmark.folds_by_domain(rows, 5)
    tested = [row["doc_id"] for fold in folds for row in fold.test]
    assert sorted(tested) == sorted(row["doc_id"] for row in rows if row["tier"] == "human")
    for fold in folds:
        domains = [{row["domain"] for row in part} for part in (fold.train, fold.dev, fold.test)]
        assert len(set.union(*domains)) == sum(map(len, domains))
        assert {row["tier"] for row in fold.dev} == {"human", "reference", "silver"}
        assert len(fold.train) > 3 * len(fold.dev) > 0
    assert max(len(fold.test) for fold in folds) - min(len(fold.test) for fold in folds) <= 2


def test_folds_do_not_depend_on_the_order_of_the_rows(benchmark):
    forward, back = benchmark.folds_by_domain(make_rows(), 5), benchmark.folds_by_domain(make_rows()[::-1], 5)
    names = [[sorted(row["doc_id"] for row in fold.dev) for fold in folds] for folds in (forward, back)]
    assert names[0] == names[1]


def test_more_folds_than_domains_are_refused(benchmark):
    with pytest.raises(SystemExit, match="only 1 domains"):
        benchmark.folds_by_domain(make_rows(1), 5)


def test_figures_are_pooled_over_folds_and_spread_over_seeds(benchmark):
    pages = [
        [LabelledPage("a", "a", "human", ("x", "y"), np.array([0, 1], dtype=np.int8))],
        [LabelledPage("b", "b", "human", ("x", "y", "z"), np.array([0, 0, 1], dtype=np.int8))],
    ]

    def row(fold, seed, lines):
        return {"fold": fold, "seed": seed, "removed": [lines], "validity": 1.0, "train_seconds": 2.0}

    results = [row(0, 0, [1]), row(1, 0, [0, 2]), row(0, 1, [1]), row(1, 1, [2])]
    found = benchmark.summary(pages, results)
    first = micro_scores([pages[0][0], pages[1][0]], [np.array([False, True]), np.array([True, False, True])]).keep_f1
    assert found["keep_f1"] == pytest.approx((first + 1) / 2, abs=1e-4)
    assert found["keep_f1_sd"] == pytest.approx((1 - first) / 2**0.5, abs=1e-4)
    assert found["per_fold"]["0"]["keep_f1"] == 1.0
    assert (found["runs"], found["seeds"], found["n_pages"]) == (4, 2, 2)


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_other_settings_are_refused(tmp_path):
    file = tmp_path / "pages.jsonl.gz"
    file.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in make_rows()).encode()))
    out = tmp_path / "runs"

    def run(steps):
        options = ["--kind", "labeller", "--folds", "2", "--seeds", "1", "--steps", str(steps)]
        command = [sys.executable, str(SCRIPT), *options, "--files", str(file), "--out", str(out)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    first = json.loads(run(1).stdout.splitlines()[-1])
    stored = (out / "fold0-seed0.json").read_text()
    (out / "fold1-seed0.json").unlink()
    again = json.loads(run(1).stdout.splitlines()[-1])
    assert (out / "fold0-seed0.json").read_text() == stored
    assert (first["runs"], first["keep_f1"]) == (again["runs"], again["keep_f1"]) == (2, again["keep_f1"])
    assert "other settings" in run(2).stderr
