""" "Programming Every Example" (arXiv 2409.17115): its program language, its printed programs, its published figures.

Programs run through our parser and executor, in the released code's mode (compat) and in ours (strict); where the two
differ the test says which is which. Figures that need weights or GPU months stand here as data, with what follows from
them by arithmetic asserted; scores of trained models are not reproduced by this project.
"""

import json

import numpy as np
import pytest

from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig
from corpusmill.prox.labelled_pages import LabelledPage
from corpusmill.prox.line_scores import micro_scores
from corpusmill.prox.program import (
    KEEP_NAMES,
    DropDoc,
    KeepChunk,
    KeepDoc,
    Normalize,
    RemoveLines,
    render_operation,
)
from corpusmill.prox.program_execution import ChunkProgram, ExecutionSettings, decide_document, execute
from corpusmill.prox.program_parser import parse_program

MODES = ("compat", "strict")
PAGE = ["Home | Login", "A first line of text", "A second line with http://x.org in it", "Follow us"]


def run(lines, program, mode, first_line=0, **gates):
    """Returns the lines that are left of a window, and the whole result; the gates on documents are open."""
    text = "\n" * first_line + "\n".join(lines)
    settings = ExecutionSettings(mode, **{"min_words": 0, "max_removed": 1.0, **gates})
    result = execute(text, [ChunkProgram(first_line, first_line + len(lines) - 1, program)], settings)
    return result.text.split("\n")[first_line:], result


# Table 1: the interface ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("call", "op", "kept"), [("drop_doc()", DropDoc(), False), ("keep_doc()", KeepDoc(), True)])
def test_table_1_document_functions(call, op, kept, mode):
    assert parse_program(call, mode).ops == (op,)
    assert render_operation(op) == call
    assert decide_document(call, mode)[0] is kept


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("call", "left"),
    [
        ("remove_lines(line_start=0, line_end=0)", PAGE[1:]),
        ("remove_lines(start=2, end=3)", PAGE[:2]),
        ('normalize(source_str=" with http://x.org in it", target_str="")', [*PAGE[:2], "A second line", PAGE[3]]),
        ('normalize(source_str="line", target_str="row")', [line.replace("line", "row") for line in PAGE]),
        ('normalize(source_str=" with http://x.org in it")', [*PAGE[:2], "A second line", PAGE[3]]),
        ("keep_chunk()", PAGE),
        ("skip_chunk()", PAGE),
        ("untouch_doc()", PAGE),
    ],
)
def test_table_1_chunk_functions_with_lines_from_0_and_both_ends_included(call, left, mode):
    assert run(PAGE, call, mode)[0] == left


def test_three_published_spellings_of_leaving_a_chunk_as_it_is():
    """Paper: keep_chunk; repository figure: skip_chunk; annotation prompts: untouch_doc."""
    assert {"keep_chunk", "skip_chunk", "untouch_doc"} == KEEP_NAMES
    assert {parse_program(f"{name}()", "strict").ops for name in KEEP_NAMES} == {(KeepChunk(),)}


def test_the_positional_calls_of_figure_2_run_in_strict_mode_only():
    """The released parser looks for "=" in every argument, so its own figure's calls count as errors there."""
    program = "remove_lines(0, 0)"
    assert run(PAGE, program, "strict")[0] == PAGE[1:]
    left, result = run(PAGE, program, "compat")
    assert left == PAGE
    assert result.n_errors == 1


def test_the_limits_of_inference():
    chunk, document = ChunkRefinementConfig(model="gair-prox/a"), DocRefinementConfig(model="gair-prox/a")
    assert (chunk.window_tokens, chunk.max_new_tokens, document.max_prompt_tokens) == (1500, 256, 2000)
    assert (chunk.min_words, chunk.max_removed, chunk.min_kept, chunk.max_errors) == (10, 0.95, 0.0, 2)
    assert chunk.execution_mode == document.execution_mode == "compat"


# The printed programs ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cases(shared_data):
    path = shared_data / "prox" / "prox_paper_cases.jsonl"
    if not path.is_file():
        pytest.skip(f"no printed programs at {path}")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return {row["id"]: row for row in rows}


def test_all_twelve_printed_programs_are_there(cases):
    assert len(cases) == 12


@pytest.mark.parametrize("mode", MODES)
def test_programs_printed_with_their_text_leave_what_the_paper_says(cases, mode):
    printed = [case for case in cases.values() if "lines" in case]
    assert len(printed) == 6
    for case in printed:
        first = case.get("first_line", 0)
        left, result = run(case["lines"], case["program"], mode, first)
        expected = case["result"] if "result" in case else [case["lines"][n - first] for n in case["kept"]]
        assert left == expected, case["id"]
        assert result.n_errors == 0


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["table33-1", "table34-1"])
def test_printed_document_outputs_drop(cases, name, mode):
    assert decide_document(cases[name]["program"], mode) == (False, "dropped_model")


@pytest.mark.parametrize("mode", MODES)
def test_table_34_lines_are_those_of_the_original_text(cases, mode):
    lines = [f"line {n}" for n in range(30)]
    left, result = run(lines, cases["table34-2"]["program"], mode)
    assert left == lines[8:18] + lines[25:]
    assert result.n_errors == 0


def test_table_33_a_call_broken_over_two_lines(cases):
    """Both modes run it; the released parser counts the first half as an error (it needs ")" on the line), strict mode
    completes it. The source is a prefix of the URL, so a rest stays behind, as the paper prints it."""
    lines = [*("menu" for _ in range(6)), "see http://scholar.google.co.uk/citations?user=tF_eBKEAAAAJ", "Pages: 1 3 4"]
    for mode, n_errors in (("compat", 1), ("strict", 0)):
        left, result = run(lines, cases["table33-2"]["program"], mode)
        assert left == ["see =tF_eBKEAAAAJ", ""]
        assert result.n_errors == n_errors


def test_table_36_repeats_until_the_limit(cases):
    """The paper counts it as a failure. The released executor meets two errors in the cut call and voids the document;
    strict mode leaves the cut call out and runs the five whole ones."""
    program = cases["table36-1"]["program"]
    lines = [f"line {n}" for n in range(10)]
    left, result = run(lines, program, "compat")
    assert (left, result.reason, result.n_errors) == (lines, "rejected_errors", 2)
    left, result = run(lines, program, "strict")
    assert left == [lines[0], *lines[2:6], *lines[8:]]
    assert (result.n_errors, result.n_truncated) == (0, 1)
    assert parse_program(program, "strict").ops.count(RemoveLines(7, 7)) == 3


@pytest.mark.parametrize("mode", MODES)
def test_table_36_a_source_that_is_not_in_the_text(cases, mode):
    program = cases["table36-2"]["program"]
    (op,) = parse_program(program, mode).ops
    assert isinstance(op, Normalize)
    lines = ["cited as https://doi.org/10.13106/jafeb.2020.vol7.no9.159 in the text"]
    left, result = run(lines, program, mode)
    assert left == lines
    assert (result.n_normalize_misses, result.n_errors) == (1, 0)


# Metrics of the appendix ---------------------------------------------------------------------------------------------


def test_chunk_f1_is_on_removed_lines_and_kept_lines_stand_beside_it():
    """Appendix: true positives are lines removed by both. Removing everything from a page of which four of five lines
    should go scores .89 by it, which is why kept-line F1 is reported too."""
    page = LabelledPage("", "", "", tuple("abcdefghij"), np.array([1] * 8 + [0] * 2, dtype=np.int8))
    everything = micro_scores([page], [np.ones(10, dtype=bool)])
    assert everything.remove_f1 == pytest.approx(2 * 8 / (2 * 8 + 2))
    assert everything.keep_f1 == 0.0
    half = micro_scores([page], [np.array([True] * 4 + [False] * 6)])
    assert half.remove_f1 == pytest.approx(2 * 4 / (2 * 4 + 4))


REFINERS = {"XS": (82.6, 75.2, 23.2), "S": (81.3, 75.6, 25.6), "M": (83.7, 77.3, 28.8)}
"""Appendix: document F1, chunk F1, kept tokens of RedPajama-V2 (all in percent), by size of the refiner."""
RETENTION = {"XS": 14.5, "S": 16.0, "M": 18.0}
"""Appendix: billions of tokens of 62.5 that both stages leave."""
FAILURES = {"web documents": 0.04, "web chunks": 0.36, "math documents": 0.06, "math chunks": 0.11}
"""Appendix: outputs that cannot be executed, percent."""
SCORES = {"raw": 42.1, "Gopher": 42.3, "C4": 42.6, "FineWeb": 42.8, "all rules": 42.3, "ProX-D": 43.5, "ProX-D+C": 44.6}
"""0.7B model, 26B tokens of RedPajama-V2, mean of ten tasks."""
MATH = {
    "TinyLlama": (14.7, 21.5, 25.7),
    "Llama-2": (31.5, 42.8, 46.1),
    "CodeLlama": (29.1, 43.2, 49.4),
    "Mistral": (51.6, 54.8, 59.2),
}
"""Continual pretraining on OpenWebMath, mean of nine tasks: base, raw, ProX-D+C."""


def test_retention_in_tokens_and_in_percent_agree():
    assert {size: round(100 * tokens / 62.5, 1) for size, tokens in RETENTION.items()} == {
        size: row[2] for size, row in REFINERS.items()
    }
    assert round(100 * 19.0 / 62.5, 1) == 30.4  # after the document stage
    assert round(100 * 16.0 / 19.0) == 84  # of that, after the chunk stage (S)


def test_published_failure_rates_are_far_below_our_limit_of_a_shard():
    assert max(FAILURES.values()) / 100 < ChunkRefinementConfig(model="m").max_error_fraction


def test_the_printed_gains():
    """Abstract: over 2 % for models trained from scratch; 7.6, 14.6 and 20.3 % over Mistral, Llama-2 and CodeLlama by
    continual pretraining on math. All follow from the tables, as points over the base; over raw text as continual
    pretraining, which is the effect of refining, it is 3 to 6 points."""
    assert SCORES["ProX-D+C"] - SCORES["raw"] == pytest.approx(2.5)
    assert max(SCORES, key=SCORES.__getitem__) == "ProX-D+C"
    best_rule = max(SCORES[name] for name in ("Gopher", "C4", "FineWeb", "all rules"))
    assert SCORES["ProX-D"] - best_rule == pytest.approx(0.7)
    over_base = {name: round(ours - base, 1) for name, (base, _, ours) in MATH.items()}
    assert over_base == {"TinyLlama": 11.0, "Llama-2": 14.6, "CodeLlama": 20.3, "Mistral": 7.6}
    over_raw = {name: round(ours - raw, 1) for name, (_, raw, ours) in MATH.items()}
    assert over_raw == {"TinyLlama": 4.2, "Llama-2": 3.3, "CodeLlama": 6.2, "Mistral": 4.4}
