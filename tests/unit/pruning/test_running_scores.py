"""Scores from logits that come in parts of the vocabulary equal those from all logits at once."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.pruning.causal_head import CausalHead
from corpusmill.pruning.running_scores import RunningScores, Wanted, lowest_argmax

ALL = Wanted(top_k=0)


def running(logits, labels, bounds, wanted=ALL):
    scores = RunningScores(labels, logits.dtype, wanted)
    for start, end in itertools.pairwise(bounds):
        scores.add(logits[:, start:end].clone(), start)
    return scores.finish()


@st.composite
def logits_in_parts(draw):
    """Small integers as logits, so that ties are common; cuts anywhere, also around a single id."""
    n_vocab = draw(st.integers(2, 9))
    row = st.lists(st.sampled_from([-1e30, -3.0, 0.0, 1.0, 1.0, 30.0]), min_size=n_vocab, max_size=n_vocab)
    logits = torch.tensor(draw(st.lists(row, min_size=1, max_size=4)), dtype=torch.float64)
    labels = torch.tensor([draw(st.integers(0, n_vocab - 1)) for _ in logits])
    cuts = draw(st.sets(st.integers(1, n_vocab - 1)))
    return logits, labels, [0, *sorted(cuts), n_vocab]


@settings(deadline=None, max_examples=60)
@given(logits_in_parts())
def test_any_cut_of_the_vocabulary_gives_the_scores_by_definition(case):
    logits, labels, bounds = case
    found = running(logits, labels, bounds)
    p = torch.softmax(logits, -1)
    one_hot = torch.nn.functional.one_hot(labels, logits.shape[1]).double()
    nll = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(found.nll, nll, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found.el2n, (p - one_hot).norm(dim=-1), rtol=1e-9, atol=1e-9)
    assert torch.equal(found.hit, lowest_argmax(logits) == labels)
    assert bool(found.finite.all())


@settings(deadline=None, max_examples=60)
@given(logits_in_parts(), st.integers(1, 5))
def test_a_top_k_hit_is_a_place_among_the_k_first_by_logit_and_then_by_id(case, k):
    logits, labels, _ = case
    found = running(logits, labels, [0, logits.shape[1]], Wanted(top_k=k))
    order = torch.sort(logits, dim=1, descending=True, stable=True).indices
    assert torch.equal(found.top_k_hit, (order[:, :k] == labels[:, None]).any(1))
    if k == 1:
        assert torch.equal(found.top_k_hit, found.hit)


def test_what_is_not_asked_for_is_not_computed():
    logits, labels = torch.randn(3, 7), torch.tensor([0, 3, 6])
    only_hits = running(logits, labels, [0, 7], Wanted(nll=False, el2n=False))
    assert (only_hits.nll, only_hits.el2n, only_hits.top_k_hit) == (None, None, None)
    everything = running(logits, labels, [0, 7])
    assert torch.equal(only_hits.hit, everything.hit)
    only_nll = running(logits, labels, [0, 7], Wanted(el2n=False))
    assert only_nll.el2n is None
    assert torch.equal(only_nll.nll, everything.nll)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("wanted", [ALL, Wanted(nll=False, el2n=False), Wanted(nll=False, el2n=False, top_k=2)])
def test_a_logit_that_is_no_finite_number_marks_its_position_alone(bad, wanted):
    logits, labels = torch.zeros(3, 6), torch.tensor([0, 1, 2])
    logits[1, 4] = bad
    bounds = [0, 6] if wanted.top_k else [0, 3, 6]
    assert running(logits, labels, bounds, wanted).finite.tolist() == [True, False, True]
    assert lowest_argmax(logits).max() < 6


@pytest.mark.parametrize("chunk", [1, 5, 64])
def test_a_vocabulary_of_several_parts_gives_the_same_scores_through_the_head(monkeypatch, chunk):
    import corpusmill.pruning.causal_head as causal_head

    generator = torch.Generator().manual_seed(0)
    head = CausalHead(torch.randn(301, 16, generator=generator), torch.randn(301, generator=generator), softcap=4.0)
    hidden = torch.randn(40, 16, generator=generator)
    labels = torch.randint(0, 301, (40,), generator=generator)
    whole = head.scores(hidden, labels, 64, ALL)
    monkeypatch.setattr(causal_head, "VOCABULARY_PART", 60)
    with torch.inference_mode():
        parts = head.scores(hidden, labels, chunk, ALL)
        ranked = head.scores(hidden, labels, chunk, Wanted(top_k=3))
    for name in ("nll", "el2n"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(getattr(ranked, name), getattr(whole, name), rtol=1e-5, atol=1e-6)
    assert torch.equal(parts.hit, whole.hit)
    assert bool((ranked.top_k_hit | ~whole.hit).all()), "a greedy hit is a top-3 hit"


def test_logits_of_any_common_size_lose_no_digits():
    logits, labels = torch.tensor([[1.0, 3.0, 0.5]]), torch.tensor([1])
    plain = running(logits, labels, [0, 3])
    shifted = running(logits + 2.0**20, labels, [0, 2, 3])
    assert plain.nll.item() == pytest.approx(shifted.nll.item(), rel=1e-6)
    huge = running(torch.full((1, 3), -1e30), torch.tensor([2]), [0, 1, 3])
    assert huge.nll.item() == pytest.approx(torch.tensor(3.0).log().item(), rel=1e-6)
