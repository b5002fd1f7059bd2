"""The document head: defined on every text, finds a separable concept, precise at its threshold."""

import numpy as np
import pytest

from corpusmill.errors import ConfigError
from corpusmill.prox.document_evaluation import area_under_curve
from corpusmill.prox.document_head import DOCUMENT_FEATURES, DocumentHead, document_features, fit_document_head
from corpusmill.prox.document_head_training import (
    JudgedDocuments,
    beginning,
    drop_share,
    train_document_head,
)
from corpusmill.prox.labelled_pages import LabelledPage


@pytest.mark.parametrize("lines", [[], ["a"], ["\x00"], ["\ud800"], ["\u4e2d\u6587"], ["|"], ["w " * 50_000]], ids=repr)
def test_document_features_are_finite_on_boundary_texts(lines):
    features = document_features(lines)
    assert features.shape == (len(DOCUMENT_FEATURES),)
    assert np.isfinite(features).all()


def test_the_fit_separates_documents_and_moves_with_the_penalty():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(200, len(DOCUMENT_FEATURES)))
    dropped = features[:, 3] + 0.3 * rng.normal(size=200) > 0
    loose = fit_document_head(features, dropped, penalty=1.0, threshold=0.5)
    strict = fit_document_head(features, dropped, penalty=1000.0, threshold=0.5)
    scores = np.array([loose.p_drop(row) for row in features])
    assert area_under_curve(scores, dropped) > 0.95
    assert np.abs(strict.weights).sum() < np.abs(loose.weights).sum() / 5


def test_one_label_alone_is_refused():
    with pytest.raises(ConfigError, match="same label"):
        fit_document_head(np.zeros((3, 2)), np.zeros(3, dtype=bool), penalty=1.0, threshold=0.5)


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
    judged = JudgedDocuments(
        np.stack([document_features(text) for text in texts]), np.array([i % 2 == 0 for i in range(60)])
    )
    lines = (*article(), *menu())
    labels = np.array([0 if line.endswith(".") else 1 for line in lines], dtype=np.int8)
    pages = [LabelledPage("x", "d", "human", lines, labels)]
    head, quality = train_document_head(judged, pages, pages, seed=0)
    assert quality["auc"] > 0.95
    assert quality["drop_precision"] >= 0.9
    assert head.p_drop(document_features(article())) < head.threshold <= head.p_drop(document_features(menu()))


def test_a_beginning_takes_whole_lines_until_the_words_are_there():
    assert beginning(["a b c", "d e", "f"], 4) == ["a b c", "d e"]
    assert beginning(["a"], 10) == ["a"]
    assert beginning([], 10) == []


def test_the_drop_share_counts_documents_and_is_zero_for_none():
    n = len(DOCUMENT_FEATURES)
    never = DocumentHead(np.zeros(n), np.ones(n), np.zeros(n), -40.0, 0.5)
    always = DocumentHead(np.zeros(n), np.ones(n), np.zeros(n), 40.0, 0.5)
    assert (drop_share(never, [["a"], ["b"]]), drop_share(always, [["a"]]), drop_share(always, [])) == (0.0, 1.0, 0.0)
