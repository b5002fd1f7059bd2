"""Properties of program parsing and execution that hold for every text and every program."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.prox.chunking import join_chunks, join_outputs, split_text
from corpusmill.prox.program import DropDoc, KeepChunk, KeepDoc, Normalize, RemoveAll, RemoveLines, render_program
from corpusmill.prox.program_execution import ChunkProgram, ExecutionSettings, decide_document, execute
from corpusmill.prox.program_parser import parse_program

MODES = st.sampled_from(["strict", "compat"])
ANY_TEXT = st.text(st.characters(), max_size=200)  # lone surrogates, controls and other scripts included
LINE = st.text(st.characters(exclude_characters="\n"), max_size=30)
WORDS = st.lists(st.sampled_from(["a", "bb", "ccc", "x=1", "a,b", "(d)", "\u4f60", "\t"]), max_size=12)
WORDY_TEXT = st.lists(WORDS, max_size=12).map(lambda lines: "\n".join(" ".join(words) for words in lines))
NUMBER = st.integers(min_value=-5, max_value=30) | st.integers(min_value=0, max_value=10**30)
QUOTED = st.sampled_from(["a", "bb", "ccc", "", " ", "x=1", "a,b", "(d)", 'say "hi"', "\\", "\\n", "a bb"])
CALL = st.one_of(
    st.builds("remove_lines(start={}, end={})".format, NUMBER, NUMBER),
    st.builds("remove_lines({}, {})".format, NUMBER, NUMBER),
    st.builds('normalize(source_str="{}", target_str="")'.format, QUOTED),
    st.builds("normalize('{}')".format, QUOTED),
    st.sampled_from(["keep_chunk()", "# note", "```python", "remove_lines(all=True)", "remove_lines(x)", "normalize("]),
    ANY_TEXT,
)
PROGRAM = st.lists(CALL, max_size=8).map("\n".join)
OPEN = {"min_words": 0, "max_removed": 1.0, "max_errors": 10**9}
"""Gates that let everything pass but the removal of all words."""


def whole(text, program):
    return [ChunkProgram(0, text.count("\n"), program)]


def is_subsequence(lines, of):
    rest = iter(of)
    return all(any(line == other for other in rest) for line in lines)


@given(text=ANY_TEXT, program=ANY_TEXT | PROGRAM, mode=MODES, first=NUMBER, last=NUMBER)
def test_no_text_and_no_program_raises(text, program, mode, first, last):
    result = execute(text, [ChunkProgram(first, last, program), *whole(text, program)], ExecutionSettings(mode))
    assert result.reason
    assert len(result.chunks) == 2
    assert decide_document(program, mode)[1]


@given(text=ANY_TEXT, mode=MODES, keep=st.sampled_from(["keep_chunk()", "skip_chunk()", "untouch_doc()", ""]))
def test_a_kept_document_is_the_same_text(text, mode, keep):
    result = execute(text, whole(text, keep), ExecutionSettings(mode))
    assert result.text == (text if len(text.split()) > 10 else "")


@given(text=WORDY_TEXT, program=PROGRAM, mode=MODES)
def test_words_never_grow_where_targets_are_empty(text, program, mode):
    result = execute(text, whole(text, program), ExecutionSettings(mode, **OPEN))
    if all(not operation.target for operation in result.operations):
        assert result.n_words_after <= result.n_words_before
        assert len(result.text) <= len(text)


@given(
    text=WORDY_TEXT,
    ranges=st.lists(st.tuples(NUMBER, NUMBER), max_size=6),
    mode=MODES,
)
def test_removal_leaves_a_subsequence_of_the_lines(text, ranges, mode):
    program = "\n".join(f"remove_lines(start={first}, end={last})" for first, last in ranges)
    result = execute(text, whole(text, program), ExecutionSettings(mode, **OPEN))
    assert is_subsequence(result.text.split("\n"), text.split("\n")) or result.text == ""
    lines = text.split("\n")
    if mode == "strict" and not result.dropped and result.n_errors == 0:
        gone = {n for first, last in ranges for n in range(max(first, 0), min(last, len(lines) - 1) + 1)}
        assert result.text == "\n".join(line for n, line in enumerate(lines) if n not in gone)


@given(text=WORDY_TEXT, program=PROGRAM, mode=MODES)
def test_operations_account_for_every_character_removed(text, program, mode):
    result = execute(text, whole(text, program), ExecutionSettings(mode, **OPEN))
    if result.reason == "edited" and result.text:
        assert len(text) - len(result.text) == sum(operation.n_characters for operation in result.operations)


@given(outputs=st.lists(PROGRAM, min_size=1, max_size=4), text=WORDY_TEXT)
def test_compat_chunk_by_chunk_equals_the_joined_program(outputs, text):
    settings_ = ExecutionSettings("compat")
    apart = execute(text, [ChunkProgram(0, 0, output) for output in outputs], settings_)
    joined = execute(text, whole(text, join_outputs(outputs, [len(outputs)])[0]), settings_)
    assert (apart.text, apart.reason in {"edited"}, apart.n_errors) == (
        joined.text,
        joined.reason in {"edited"},
        joined.n_errors,
    )


@given(
    lines=st.lists(LINE, min_size=4, max_size=12),
    program=PROGRAM,
    cut=st.integers(min_value=1, max_value=3),
)
def test_a_strict_program_never_touches_lines_of_another_chunk(lines, program, cut):
    text = "\n".join(lines)
    programs = [ChunkProgram(0, cut - 1, program), ChunkProgram(cut, len(lines) - 1, "keep_chunk()")]
    result = execute(text, programs, ExecutionSettings("strict", **OPEN))
    if not result.dropped:
        assert result.text.endswith("\n".join(lines[cut:]))


OPERATION = st.one_of(
    st.builds(RemoveLines, st.integers(0, 999_999), st.integers(0, 999_999)),
    st.builds(Normalize, LINE, LINE),
    st.sampled_from([RemoveAll(), KeepChunk(), KeepDoc(), DropDoc()]),
)


@given(ops=st.lists(OPERATION, max_size=8))
def test_strict_mode_reads_back_what_was_written(ops):
    program = parse_program(render_program(ops), "strict")
    assert program.ops == tuple(ops)
    assert program.diagnostics.n_errors == 0
    assert not program.diagnostics.truncated


@given(program=PROGRAM)
def test_parsing_what_was_parsed_changes_nothing(program):
    ops = parse_program(program, "strict").ops
    assert parse_program(render_program(ops), "strict").ops == ops


@given(text=ANY_TEXT, budget=st.integers(min_value=1, max_value=40))
def test_chunks_cover_the_text_and_keep_to_the_budget(text, budget):
    chunks = split_text(text, len, budget)
    assert join_chunks(chunks) == text
    assert [chunk.first_line for chunk in chunks[1:]] == [chunk.last_line + 1 for chunk in chunks[:-1]]
    for chunk in chunks:
        assert len(chunk.lines) == 1 or sum(map(len, chunk.numbered())) <= budget


@settings(max_examples=20, deadline=None)
@given(number=st.integers(min_value=10**6, max_value=10**40), mode=MODES)
def test_numbers_in_a_program_do_not_drive_the_work(number, mode):
    text = "\n".join(f"line {n} has five words" for n in range(50))
    program = "\n".join(f"remove_lines(start={number}, end={number * 10 + n})" for n in range(50))
    started = time.process_time()
    execute(text, whole(text, program), ExecutionSettings(mode))
    execute(text, whole(text, f"remove_lines(start=0, end={number})"), ExecutionSettings(mode))
    assert time.process_time() - started < 5  # materialising such a range takes minutes or all memory


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(
    piece=st.sampled_from(
        ["remove_lines(start=0, end=99)", 'normalize(source_str="a', "normalize(", "(((", "'\"", "\\", "x(", "a ", "]="]
    ),
    separator=st.sampled_from(["", "\n", ",", " "]),
    mode=MODES,
)
def test_very_long_programs_and_lines_end(piece, separator, mode):
    program = separator.join([piece] * 20_000)
    text = "word " * 20_000 + "\n" + "a\n" * 2_000
    result = execute(text, whole(text, program), ExecutionSettings(mode))
    assert result.reason


def test_replacements_that_would_blow_up_are_refused():
    text = "ab " * 1000
    program = "\n".join(['normalize(source_str="ab", target_str="abababab")'] * 40)
    for mode in ("strict", "compat"):
        result = execute(text, whole(text, program), ExecutionSettings(mode))
        assert result.reason == "rejected_errors"
        assert result.text == text
