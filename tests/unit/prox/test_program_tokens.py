"""Program tokens: one program for each set of removed lines, its exact text, and the grammar of both."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.prox.line_features import nonblank
from corpusmill.prox.line_labeller import program_of, removed_lines
from corpusmill.prox.program import RemoveLines
from corpusmill.prox.program_execution import ChunkProgram, ExecutionSettings, execute
from corpusmill.prox.program_parser import parse_program
from corpusmill.prox.program_tokens import (
    LAST_NUMBER,
    Group,
    Scan,
    Word,
    is_program,
    next_group,
    next_scan,
    program_text,
    program_tokens,
    row_numbers,
)

OPEN_GATES = ExecutionSettings("strict", min_words=0, max_removed=1.0)
MARKS = st.lists(st.booleans(), min_size=1, max_size=40)


def spelled(marks, first_line=0):
    return program_text(program_tokens(marks), row_numbers(len(marks), range(len(marks)), first_line))


@settings(max_examples=100, deadline=None)
@given(MARKS, st.integers(0, 999_900))
def test_labels_to_tokens_to_text_and_back_are_the_labels(marks, first_line):
    tokens = program_tokens(marks)
    assert is_program(tokens, len(marks))
    program = parse_program(spelled(marks, first_line), "strict")
    assert not program.diagnostics.n_errors
    back = [False] * len(marks)
    for op in program.ops:
        if isinstance(op, RemoveLines):
            back[op.first - first_line : op.last - first_line + 1] = [True] * (op.last - op.first + 1)
    assert back == marks


@settings(max_examples=100, deadline=None)
@given(MARKS)
def test_the_text_is_what_the_labeller_writes_for_the_same_lines(marks):
    assert spelled(marks, 7) == program_of(marks, 7)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["", " ", "a", "b c"]), max_size=20), st.integers(0, 20), st.data())
def test_blank_lines_go_with_the_line_before_them(lines, place, data):
    lines.insert(place, "x")
    filled = nonblank(lines)
    gone = data.draw(st.lists(st.booleans(), min_size=len(filled), max_size=len(filled)))
    text = program_text(program_tokens(gone), row_numbers(len(lines), filled, 0))
    result = execute("\n".join(lines), [ChunkProgram(0, len(lines) - 1, text)], OPEN_GATES)
    kept = [line for line, went in zip(lines, removed_lines(lines, gone, filled), strict=True) if not went]
    assert result.text == "\n".join(kept)


def test_numbers_end_at_six_digits():
    assert row_numbers(9, [0], LAST_NUMBER - 3) == [(LAST_NUMBER - 3, LAST_NUMBER)]


@settings(max_examples=100, deadline=None)
@given(MARKS)
def test_every_token_of_a_program_is_where_group_and_scan_look_for_it(marks):
    tokens = program_tokens(marks)
    for place, token in enumerate(tokens):
        group, scan = next_group(tokens[:place]), next_scan(tokens[:place])
        assert (token >= 0) == (group == Group.ROW)
        if token >= 0:
            assert token >= scan.first
            assert scan.ends_range == (tokens[place - 1] == Word.MIDDLE)
        elif token in (Word.OPEN, Word.KEEP, Word.END):
            assert group == Group.DECIDE


def test_scans_are_defined_after_any_tokens():
    assert next_scan([]) == Scan(ends_range=False, first=0)
    assert next_scan([Word.MIDDLE, Word.MIDDLE]) == Scan(ends_range=True, first=0)
    assert next_scan([3, 4]) == Scan(ends_range=False, first=6)


OP, M, C, K, E = Word.OPEN, Word.MIDDLE, Word.CLOSE, Word.KEEP, Word.END


@pytest.mark.parametrize(
    "tokens",
    [
        [],
        [E],
        [K],
        [K, K, E],
        [OP, 0, M, 1, C],
        [OP, 1, M, 0, C, E],
        [OP, 0, M, 9, C, E],
        [OP, 0, C, 1, M, E],
        [OP, 0, M, 1, C, OP, 2, M, 3, C, E],
        [OP, 2, M, 3, C, OP, 0, M, 0, C, E],
        [K, OP, 0, M, 1, C, E],
        [OP, OP, M, 1, C, E],
    ],
    ids=str,
)
def test_what_is_no_program_is_recognised(tokens):
    assert not is_program(tokens, 5)


def test_any_tokens_have_a_text_and_it_is_parsed_without_executing_anything_else():
    tokens = [C, 1, OP, K, M, 2, 0, E, OP, 3]
    text = program_text(tokens, [(10, 19), (20, 29), (30, 39), (40, 49)])
    assert text == ")20\nremove_lines(start=\nkeep_chunk(), end=3919\nremove_lines(start=40"
    assert parse_program(text, "strict").diagnostics.truncated
