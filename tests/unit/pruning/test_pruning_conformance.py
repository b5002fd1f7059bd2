import json
import logging

import pytest

from corpusmill.pruning.conformance import CHECKS, check_case


def test_every_golden_case_passes_through_the_scorer_and_the_selection(shared_data, caplog):
    caplog.set_level(logging.ERROR)
    path = shared_data.parent / "conformance" / "pruning_golden.jsonl"
    if not path.is_file():
        pytest.skip(f"no golden cases at {path}")
    cases = [json.loads(line) for line in path.read_text().splitlines()]
    failed = {}
    for case in cases:
        try:
            assert check_case(case) is None
        except AssertionError as error:
            failed[case["id"]] = str(error)
    assert failed == {}
    assert len(cases) == 42
    assert {case["kind"] for case in cases} == set(CHECKS)


@pytest.mark.parametrize(
    "case",
    [
        {"kind": "score", "logits": [[0.0, 0.0]], "labels": [0], "mask": [1], "token_nll": [0.7],
         "token_el2n": [0.7071067811865476], "token_greedy_match": [True], "token_argmax_first": [0], "n_scored": 1,
         "mean_nll": 0.7, "ppl": 2.0, "el2n": 0.7071067811865476, "teacher_forced_acc": 1.0},
        {"kind": "selection", "scores": [1.0, 2.0], "fraction": "1/2", "which": "bottom", "tiebreak": None,
         "n_keep": 1, "kept_rank_mode": [1], "kept_threshold_mode": [0], "threshold_lo": None, "threshold_hi": 1.5},
        {"kind": "packing", "docs": [[1]], "eod": 0, "t": 2, "sequences": [[1, 1]], "remainder": [],
         "docs_in_sequence": [[0]]},
        {"kind": "ensemble", "per_model_el2n": [[0.5], [0.7]], "expected": [0.7]},
        {"kind": "memorization", "toy_lm_next": {"0": 0}, "seq": [0, 0, 0], "M": 1, "N": 2, "generated": [0, 0],
         "score": 0.5, "first_mismatch": 2, "prefix_match": 1.0, "teacher_forced_matches": [True, True],
         "teacher_forced_acc": 1.0},
        {"kind": "unheard_of"},
    ],
    ids=lambda case: case["kind"],
)  # fmt: skip
def test_a_wrong_expectation_or_an_unknown_kind_fails(case):
    with pytest.raises(AssertionError, match=r"expected"):
        check_case(case)
