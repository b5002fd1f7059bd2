"""The document head: defined on every text, finds a separable concept, precise at its threshold."""

import json

import numpy as np
import pytest

from corpusmill.errors import ConfigError
from corpusmill.prox.document_evaluation import area_under_curve
from corpusmill.prox.document_features import (
    DOCUMENT_FEATURES,
    N_WORD_BUCKETS,
    STYLE_FEATURES,
    DocumentFeatures,
    document_features,
)
from corpusmill.prox.document_head import DocumentHead, fit_document_head
from corpusmill.prox.document_head_training import (
    Verdicts,
    beginning,
    cross_validate_documents,
    drop_share,
    train_document_head,
)
from corpusmill.prox.labelled_pages import LabelledPage

N_DENSE = len(DOCUMENT_FEATURES) + len(STYLE_FEATURES)
N_ENGLISH = 11  # style features that count English words
ENGLISH = (
    "The lighthouse was built in 1871 after two ships had been lost, and it is open to visitors who like the view."
)
GERMAN = (
    "Der Leuchtturm wurde 1871 gebaut, nachdem zwei Schiffe verloren gingen, und steht heute allen Besuchern offen."
)


def numbers(dense, words=()):
    """Features as `document_features` makes them, from numbers and buckets of words."""
    return DocumentFeatures(np.asarray(dense), np.array(sorted(words), dtype=np.int64), np.ones(len(words), np.float32))


@pytest.mark.parametrize("lines", [[], ["a"], ["\x00"], ["\ud800"], ["\u4e2d\u6587"], ["|"], ["w " * 50_000]], ids=repr)
def test_document_features_are_numbers_on_boundary_texts(lines):
    features = document_features(lines)
    assert features.dense.shape == (N_DENSE,)
    english = slice(len(DOCUMENT_FEATURES), len(DOCUMENT_FEATURES) + N_ENGLISH)
    assert np.isfinite(np.delete(features.dense, np.arange(N_DENSE)[english])).all()
    assert len(features.buckets) == len(features.counts) == len(set(features.buckets.tolist()))
    assert features.buckets.max(initial=0) < N_WORD_BUCKETS


def test_words_of_english_are_counted_in_english_texts_only():
    english, german = (
        document_features([text]).dense[len(DOCUMENT_FEATURES) :][:N_ENGLISH] for text in (ENGLISH, GERMAN)
    )
    assert np.isfinite(english).all()
    assert english[STYLE_FEATURES.index("articles")] == pytest.approx(2 / 22)
    assert np.isnan(german).all()


def test_a_feature_that_is_unknown_counts_as_average():
    weights = np.zeros(N_DENSE)
    weights[60] = 3.0
    head = DocumentHead(np.full(N_DENSE, 7.0), np.ones(N_DENSE), weights, 0.0, 0.5)
    dense = np.full(N_DENSE, 9.0)
    assert head.p_drop(numbers(dense)) > 0.9
    dense[60] = np.nan
    assert head.p_drop(numbers(dense)) == 0.5


def test_the_fit_separates_documents_and_moves_with_the_penalty():
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(200, N_DENSE))
    dropped = dense[:, 3] + 0.3 * rng.normal(size=200) > 0
    documents = [numbers(row) for row in dense]
    loose = fit_document_head(documents, dropped, penalty=1.0, word_penalty=1.0, threshold=0.5)
    strict = fit_document_head(documents, dropped, penalty=1000.0, word_penalty=1.0, threshold=0.5)
    scores = np.array([loose.p_drop(document) for document in documents])
    assert area_under_curve(scores, dropped) > 0.95
    assert np.abs(strict.weights).sum() < np.abs(loose.weights).sum() / 5


def test_the_fit_is_where_the_penalised_loss_is_smallest():
    rng = np.random.default_rng(3)
    documents = [numbers(rng.normal(size=N_DENSE), rng.choice(50, 5, replace=False)) for _ in range(40)]
    dropped = rng.random(40) < 0.5
    weight = rng.uniform(0.2, 1.0, 40)
    head = fit_document_head(documents, dropped, penalty=2.0, word_penalty=0.5, threshold=0.5, weight=weight)

    def loss(bias=0.0, shift=0.0, word_shift=0.0):
        moved = DocumentHead(
            head.mean,
            head.scale,
            head.weights + shift,
            head.bias + bias,
            0.5,
            head.word_scale,
            head.word_weights + word_shift * (head.word_scale > 0),
        )
        p = np.array([moved.p_drop(document) for document in documents])
        ridge = (moved.weights**2).sum() * 2.0 / 2 + (moved.word_weights**2).sum() * 0.5 / 2
        return -(weight * np.log(np.where(dropped, p, 1 - p))).sum() + ridge

    for move in ({"bias": 1e-2}, {"shift": 1e-3}, {"word_shift": 1e-2}):
        back = {name: -value for name, value in move.items()}
        assert loss() < min(loss(**move), loss(**back)), move


def test_words_decide_where_numbers_say_nothing():
    documents = [numbers(np.zeros(N_DENSE), [1, 2 + i % 2]) for i in range(40)]
    dropped = np.array([i % 2 == 0 for i in range(40)])
    head = fit_document_head(documents, dropped, penalty=1.0, word_penalty=0.1, threshold=0.5)
    assert head.p_drop(documents[0]) > 0.8 > 0.2 > head.p_drop(documents[1])
    assert head.p_drop(numbers(np.zeros(N_DENSE), [9])) == pytest.approx(0.5, abs=0.05)


def test_a_stored_head_decides_the_same_and_one_of_the_first_version_loads():
    documents = [numbers(np.full(N_DENSE, i / 20), [i % 7, 9]) for i in range(20)]
    dropped = np.arange(20) < 8
    head = fit_document_head(documents, dropped, penalty=1.0, word_penalty=1.0, threshold=0.6)
    again = DocumentHead.from_tensors(head.tensors(), 0.6)
    assert [again.p_drop(d) for d in documents] == pytest.approx([head.p_drop(d) for d in documents], abs=1e-5)
    n = len(DOCUMENT_FEATURES)
    old = {name: np.ones(n, np.float32) for name in ("mean", "scale", "weights")} | {"bias": np.zeros(1, np.float32)}
    assert DocumentHead.from_tensors(old, 0.5).p_drop(numbers(np.ones(N_DENSE), [3])) == 0.5


@pytest.mark.parametrize("name", ["weights", "word_weights"])
def test_a_head_of_another_size_is_refused(name):
    documents = [numbers(np.full(N_DENSE, i / 20), [i]) for i in range(20)]
    tensors = fit_document_head(documents, np.arange(20) < 8, penalty=1.0, word_penalty=1.0, threshold=0.6).tensors()
    with pytest.raises(ValueError, match="shape"):
        DocumentHead.from_tensors({**tensors, name: tensors[name][:-1]}, 0.5)


def test_one_label_alone_is_refused():
    with pytest.raises(ConfigError, match="same label"):
        fit_document_head(
            [numbers(np.zeros(N_DENSE))] * 3, np.zeros(3, dtype=bool), penalty=1.0, word_penalty=1.0, threshold=0.5
        )


def test_area_under_curve_counts_ties_half():
    positive = np.array([True, False, False])
    assert area_under_curve(np.array([0.5, 0.5, 0.1]), positive) == 0.75


def test_training_on_articles_and_menus_keeps_articles_and_drops_menus():
    rng = np.random.default_rng(1)

    def article():
        return [" ".join(["word"] * int(rng.integers(12, 30))) + "." for _ in range(int(rng.integers(5, 12)))]

    def menu():
        return ["Home", "About us", "Contact", "Terms"] * int(rng.integers(1, 4))

    texts = [article() if i % 2 else menu() for i in range(60)]
    judged = Verdicts(
        [document_features(text) for text in texts], np.array([i % 2 == 0 for i in range(60)]), np.ones(60, dtype=bool)
    )
    lines = (*article(), *menu())
    labels = np.array([0 if line.endswith(".") else 1 for line in lines], dtype=np.int8)
    pages = [LabelledPage("x", "d", "human", lines, labels)]
    head, quality = train_document_head(judged, pages, pages, seed=0)
    assert quality["auc"] > 0.95
    assert quality["drop_precision"] >= 0.9
    assert head.p_drop(document_features(article())) < head.threshold <= head.p_drop(document_features(menu()))


def test_cross_validation_of_documents_that_differ_is_perfect_and_repeats(tmp_path):
    rows = [
        {"text": ENGLISH if i % 2 else f"Buy now! | Cart | ${i}", "label": i % 2, "unanimous": i < 20}
        for i in range(24)
    ]
    (tmp_path / "judged.jsonl").write_text("\n".join(map(json.dumps, rows)))
    page = {"lines": ["Menu", ENGLISH], "remove": [0], "domain": "x", "tier": "human"}
    (tmp_path / "pages.jsonl").write_text(json.dumps(page))
    lines = []
    found = [
        cross_validate_documents(
            tmp_path / "judged.jsonl", tmp_path / "pages.jsonl", folds=2, seeds=2, progress=lines.append
        )
        for _ in range(2)
    ]
    figures = {"auc": 1.0, "auc_sd": 0.0, "auc_unanimous": 1.0}
    assert found[0] == found[1] == {**figures, "folds": 2, "repeats": 2, "n_documents": 24, "n_unanimous": 20}
    assert lines[0] == "repeat 0: AUC 1.0000, where all judges agreed 1.0000"


def test_a_beginning_takes_whole_lines_until_the_words_are_there():
    assert beginning(["a b c", "d e", "f"], 4) == ["a b c", "d e"]
    assert beginning(["a"], 10) == ["a"]
    assert beginning([], 10) == []


def test_the_drop_share_counts_documents_and_is_zero_for_none():
    n = len(DOCUMENT_FEATURES)
    never = DocumentHead(np.zeros(n), np.ones(n), np.zeros(n), -40.0, 0.5)
    always = DocumentHead(np.zeros(n), np.ones(n), np.zeros(n), 40.0, 0.5)
    assert (drop_share(never, [["a"], ["b"]]), drop_share(always, [["a"]]), drop_share(always, [])) == (0.0, 1.0, 0.0)
