"""Checks one case of ``pruning_golden.jsonl`` through the code that scores and selects real documents."""

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from corpusmill.errors import CorpusmillError
from corpusmill.pruning.config import SelectionConfig
from corpusmill.pruning.el2n import ensemble_el2n, mean_el2n
from corpusmill.pruning.order import float_of_key
from corpusmill.pruning.packing import pack
from corpusmill.pruning.perplexity import mean_nll, per_token, perplexity
from corpusmill.pruning.selection import Manifest, select

FLOAT64_TOLERANCE = 1e-11
FLOAT32_TOLERANCE = 1e-5


def check_case(case: dict[str, Any]) -> str | None:
    """Returns None where the case passes, and the reason where it cannot be run here.

    Args:
        case: One line of the file, with ``kind``, ``id`` and the fields of its kind.

    Raises:
        AssertionError: The case fails, or its kind is unknown.
    """
    kind = case.get("kind")
    check = CHECKS.get(str(kind))
    assert check is not None, f"kind {kind!r} is unknown; expected one of {sorted(CHECKS)}"
    if kind in NEEDS_TORCH:
        try:
            import torch  # noqa: F401 - only whether it is there
        except ImportError:
            return "torch is not installed (extra: models)"
    check(case)
    return None


class TableModel:
    """A causal language model whose logits are read from a table; what a transformers model needs for scoring.

    Its hidden state is one-hot and its output embedding holds the logits, so that they pass through the real head.
    """

    def __init__(self, logits: Any, state_of: Callable[[Any], Any]) -> None:
        """Takes logits [S, V] of S states, and a function from ids [B, T] to states [B, T]."""
        self._n_states = len(logits)
        self._state_of = state_of
        self._layer = SimpleNamespace(weight=logits.t().contiguous(), bias=None)
        self.config = SimpleNamespace()

    def get_output_embeddings(self) -> Any:
        """Returns the layer whose weight is the output embedding."""
        return self._layer

    def base_model(self, input_ids: Any, **_: Any) -> Any:
        """Returns one-hot hidden states; there is no cache."""
        import torch

        states_BT = self._state_of(input_ids)
        hidden = torch.nn.functional.one_hot(states_BT, self._n_states).to(self._layer.weight.dtype)
        return SimpleNamespace(last_hidden_state=hidden)


def _check_score(case: dict[str, Any]) -> None:
    import torch

    for dtype, tolerance in ((torch.float64, FLOAT64_TOLERANCE), (torch.float32, FLOAT32_TOLERANCE)):
        logits = torch.tensor(case["logits"], dtype=dtype)
        _check_tokens(case, logits, tolerance)
        for chunk in (1, 256):
            _check_sums(case, logits, tolerance, chunk)


def _check_tokens(case: dict[str, Any], logits: Any, tolerance: float) -> None:
    import torch

    from corpusmill.pruning.one_pass import one_exp
    from corpusmill.pruning.running_scores import lowest_argmax

    tokens = one_exp(logits.clone(), torch.tensor(case["labels"]))
    assert tokens.nll is not None, "one_exp gave no NLL"
    assert tokens.el2n is not None, "one_exp gave no EL2N"
    _close("token_nll", tokens.nll.tolist(), case["token_nll"], tolerance)
    _close("token_el2n", tokens.el2n.tolist(), case["token_el2n"], tolerance)
    _equal("token_greedy_match", tokens.hit.tolist(), case["token_greedy_match"])
    _equal("token_argmax_first", lowest_argmax(logits).tolist(), case["token_argmax_first"])


def _check_sums(case: dict[str, Any], logits: Any, tolerance: float, chunk: int) -> None:
    import torch

    from corpusmill.pruning.one_pass import score_batch

    model = TableModel(
        torch.cat([logits, logits[-1:]]), lambda ids_BT: torch.arange(ids_BT.shape[1]).expand(ids_BT.shape)
    )
    ids_BT = torch.tensor([[0, *case["labels"]]])
    mask_BT = torch.tensor([[True, *(bool(m) for m in case["mask"])]])
    sums = score_batch(model, ids_BT, mask_BT, head_chunk=chunk)
    n = sums.n_scored.numpy()
    _equal("n_scored", int(n[0]), case["n_scored"])
    _close("mean_nll", mean_nll(sums.nll_sum.numpy(), n).tolist(), [case["mean_nll"]], tolerance)
    _close("el2n", mean_el2n(sums.el2n_sum.numpy(), n).tolist(), [case["el2n"]], tolerance)
    # d(exp x) = x * the relative error of x
    loose = tolerance * max(1.0, case["mean_nll"])
    _close("ppl", perplexity(sums.nll_sum.numpy(), n).tolist(), [case["ppl"]], loose)
    _close("teacher_forced_acc", per_token(sums.hits.numpy(), n).tolist(), [case["teacher_forced_acc"]], tolerance)


def _check_memorization(case: dict[str, Any]) -> None:
    import torch

    from corpusmill.pruning.causal_head import CausalHead
    from corpusmill.pruning.memorization import memorization
    from corpusmill.pruning.one_pass import score_batch

    successor = {int(token): following for token, following in case["toy_lm_next"].items()}
    n_vocab = max(*successor, *successor.values(), *case["seq"]) + 1
    logits = torch.zeros((n_vocab, n_vocab), dtype=torch.float64)
    for token, following in successor.items():
        logits[token, following] = 5.0
    model = TableModel(logits, lambda ids_BT: ids_BT)
    ids_BT = torch.tensor([case["seq"]])
    scores = score_batch(model, ids_BT, torch.ones_like(ids_BT, dtype=torch.bool), keep_states=True)
    m, n = case["M"], case["N"]
    (found,) = memorization(model, CausalHead.of(model), ids_BT, [len(case["seq"])], scores, m, n)
    assert found is not None, f"no score for {len(case['seq'])} tokens with M={m}, N={n}"
    hits = scores.hit[0, m - 1 : m - 1 + n].tolist()
    _equal("generated", list(found.generated), case["generated"])
    _equal("score", found.score, case["score"])
    _equal("first_mismatch", found.first_mismatch, case["first_mismatch"])
    _equal("prefix_match", found.first_mismatch / n, case["prefix_match"])
    _equal("teacher_forced_matches", hits, case["teacher_forced_matches"])
    _equal("teacher_forced_acc", sum(hits) / n, case["teacher_forced_acc"])


def _check_memorization_error(case: dict[str, Any]) -> None:
    import torch

    from corpusmill.pruning.causal_head import CausalHead
    from corpusmill.pruning.memorization import memorization
    from corpusmill.pruning.one_pass import score_batch

    model = TableModel(torch.eye(4, dtype=torch.float64), lambda ids_BT: ids_BT)
    length, m, n = case["seq_len"], case["M"], case["N"]
    ids_BT = torch.zeros((1, m + n + 1), dtype=torch.long)
    mask_BT = torch.arange(m + n + 1)[None] < length
    scores = score_batch(model, ids_BT, mask_BT, keep_states=True)
    _equal("score", memorization(model, CausalHead.of(model), ids_BT, [length], scores, m, n), [None])
    _equal("expected", case["expected"], "undefined")


def _select(case: dict[str, Any], mode: str) -> tuple[Manifest, list[int]]:
    scores = np.array([float(value) for value in case["scores"]])
    ties = np.array(case.get("tiebreak") or range(len(scores)), dtype=np.uint64)
    config = SelectionConfig.load(
        {"column": "score", "fraction": case["fraction"], "which": case["which"], "mode": mode}
    )
    manifest = select(scores, ties, config)
    kept = np.flatnonzero(Manifest.from_json(manifest.to_json()).keep(scores, ties)).tolist()
    return manifest, kept


def _check_selection(case: dict[str, Any]) -> None:
    manifest, kept = _select(case, "rank")
    _equal("kept_rank_mode", kept, case["kept_rank_mode"])
    _equal("n_keep", manifest.n_kept, case["n_keep"])
    manifest, kept = _select(case, "threshold")
    _equal("kept_threshold_mode", kept, case["kept_threshold_mode"])
    (cuts,) = manifest.strata.values()
    if case["threshold_lo"] is not None:
        _close("threshold_lo", [float_of_key(cuts.lo.key)], [case["threshold_lo"]], 1e-12)
    if case["threshold_hi"] is not None:
        _close("threshold_hi", [float_of_key(cuts.hi.key - 1)], [case["threshold_hi"]], 1e-12)


def _check_selection_error(case: dict[str, Any]) -> None:
    """A NaN must be an error, or be left out and counted."""
    try:
        manifest, kept = _select(case, "rank")
    except CorpusmillError:
        return
    missing = [i for i, value in enumerate(case["scores"]) if math.isnan(float(value))]
    assert not set(missing) & set(kept), f"rows {missing} have no score but {kept} were kept"
    _equal("n_unscored", manifest.n_unscored, len(missing))
    _equal("n_scored", manifest.n_scored, len(case["scores"]) - len(missing))


def _check_ensemble(case: dict[str, Any]) -> None:
    _close("expected", ensemble_el2n(case["per_model_el2n"]).tolist(), case["expected"], FLOAT64_TOLERANCE)


def _check_packing(case: dict[str, Any]) -> None:
    packed = pack(case["docs"], case["eod"], case["t"])
    _equal("sequences", packed.sequences.tolist(), case["sequences"])
    _equal("remainder", packed.remainder, case["remainder"])
    _equal("docs_in_sequence", [[s.document for s in spans] for spans in packed.spans], case["docs_in_sequence"])


def _equal(what: str, ours: object, expected: object) -> None:
    assert ours == expected, f"{what}: {ours!r}, expected {expected!r}"


def _close(what: str, ours: Sequence[float], expected: Sequence[float], relative: float) -> None:
    assert len(ours) == len(expected), f"{what}: {len(ours)} values, expected {len(expected)}"
    for i, (a, b) in enumerate(zip(ours, expected, strict=True)):
        assert math.isclose(a, b, rel_tol=relative, abs_tol=0.0), (
            f"{what}[{i}]: {a!r}, expected {b!r} within {relative}"
        )


CHECKS: dict[str, Callable[[dict[str, Any]], None]] = {
    "score": _check_score,
    "memorization": _check_memorization,
    "memorization_error": _check_memorization_error,
    "selection": _check_selection,
    "selection_error": _check_selection_error,
    "ensemble": _check_ensemble,
    "packing": _check_packing,
}
NEEDS_TORCH = {"score", "memorization", "memorization_error"}
