"""Properties of alignment, diffs and line edits: deletions become programs that perform exactly these deletions."""

import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.prox.annotation_config import SynthesisConfig
from corpusmill.prox.annotation_prompts import page_markers
from corpusmill.prox.chunking import Chunk
from corpusmill.prox.line_edits import LineEdits, RejectedError, executed, program_fault, settled, write_edits
from corpusmill.prox.program_synthesis import check_example
from corpusmill.prox.reference_labels import align_lines
from corpusmill.prox.rewrite_diff import edits_of_rewrite
from corpusmill.prox.sequence_alignment import align
from corpusmill.prox.teacher_answers import edits_of_programs, parse_score
from corpusmill.prox.training_examples import ChunkExample, Provenance

WORD = st.sampled_from(
    ["a", "b", "[edit]", "http://x.org/?y=1", 'say "hi"', "\\n", "\\", "\u4f60\u597d", "(c)", "word", "|", "\u2028"]
)
LINES = st.lists(st.lists(WORD, max_size=6), min_size=1, max_size=10)
EVERYTHING = SynthesisConfig(min_removed_characters=0, max_inserted_share=0.0)


def squeezed(text):
    return "".join(text.split())


def rejection(call):
    """Reason and message of a rejection, empty where there is none; other errors fail the test."""
    try:
        call()
    except RejectedError as error:
        return error.reason, str(error)
    return "", ""


def example(edits):
    written = write_edits(edits)
    made = ChunkExample(
        doc_id="d",
        first_line=written.done.first_line,
        lines=written.done.lines,
        program=written.program,
        unsure=tuple(sorted(written.done.unsure)),
        provenance=Provenance(route="rewrite", teacher="t"),
    )
    return made, written


@given(
    ours=st.lists(st.integers(0, 4), max_size=30), theirs=st.lists(st.integers(0, 4), max_size=30), most=st.booleans()
)
def test_alignment_pairs_equal_tokens_in_order(ours, theirs, most):
    pairs = align(ours, theirs, most_matches=most)
    assert all(ours[i] == theirs[j] for i, j in pairs)
    assert all(a < c and b < d for (a, b), (c, d) in pairwise(pairs))


@given(ours=st.lists(st.integers(0, 4), max_size=30), data=st.data())
def test_a_sequence_made_by_deletions_is_found_whole(ours, data):
    kept = data.draw(st.lists(st.booleans(), min_size=len(ours), max_size=len(ours)))
    theirs = [token for token, stays in zip(ours, kept, strict=True) if stays]
    assert len(align(ours, theirs, most_matches=True)) == len(theirs)


@given(lines=LINES, data=st.data(), first=st.sampled_from([0, 7, 1200]))
def test_a_rewrite_by_deletions_becomes_a_program_that_does_the_same(lines, data, first):
    kept = [[word for word in line if data.draw(st.booleans())] for line in lines]
    window = Chunk(first, tuple(" ".join(line) for line in lines))
    begin, end = page_markers("\n".join(window.lines))
    rewrite = "\n".join(" ".join(line) for line in kept if line)
    edits = edits_of_rewrite(window, f"{begin}\n{rewrite}\n{end}", EVERYTHING)
    assert squeezed("".join(line for _, line in edits.kept())) == squeezed(rewrite)
    made, written = example(settled(edits))
    assert program_fault(made) == ""
    check_example(made, "\n".join(line for _, line in written.done.kept()))
    if not written.n_undone:
        assert squeezed(executed(made)) == squeezed(rewrite)
    else:
        assert set(written.done.unsure) <= set(range(first, first + len(lines)))
        assert len(squeezed(executed(made))) - len(squeezed(rewrite)) == written.n_undone


@given(
    lines=st.lists(st.text(st.characters(exclude_characters="\n", exclude_categories=["Cs"]), max_size=20), min_size=1),
    data=st.data(),
    first=st.integers(0, 50),
)
def test_any_edits_become_a_right_program(lines, data, first):
    numbers = st.integers(first, first + len(lines) - 1)
    deletions = {}
    for number in data.draw(st.sets(numbers, max_size=4)):
        size = len(lines[number - first])
        ends = sorted(data.draw(st.sets(st.integers(0, size), max_size=4)))
        deletions[number] = tuple(zip(ends[::2], ends[1::2], strict=False))
    removed = frozenset(data.draw(st.sets(numbers, max_size=5)))
    unsure = frozenset(data.draw(st.sets(numbers, max_size=2)))
    edits = settled(LineEdits(first, tuple(lines), removed, deletions, unsure))
    assert settled(edits) == edits
    made, written = example(edits)
    assert program_fault(made) == ""
    check_example(made, "\n".join(line for _, line in written.done.kept()))
    for part in edits.windows(40, 3):
        small, done = example(part)
        check_example(small, "\n".join(line for _, line in done.done.kept()))
    assert [line for part in edits.windows(40, 3) for line in part.lines] == lines


@given(lines=LINES, answer=st.text(max_size=200), wrapped=st.booleans())
def test_no_answer_raises_anything_but_a_rejection(lines, answer, wrapped):
    window = Chunk(0, tuple(" ".join(line) for line in lines))
    begin, end = page_markers("\n".join(window.lines))
    asked = [
        lambda: edits_of_programs(window, [("links", f"x\n```python\n{answer}\n```" if wrapped else answer)]),
        lambda: edits_of_rewrite(window, f"{begin}{answer}{end}" if wrapped else answer, SynthesisConfig()),
        lambda: parse_score("format", f"Extraction Quality Score: {answer}" if wrapped else answer),
    ]
    for ask in asked:
        reason, message = rejection(ask)
        assert (reason == "") == (message == "")


@given(lines=st.lists(st.text(max_size=20), max_size=12), reference=st.text(max_size=80))
def test_every_line_gets_a_label_by_any_reference(lines, reference):
    aligned = align_lines(lines, reference)
    assert len(aligned.labels) == len(lines)
    assert 0 <= aligned.found <= 1
    assert 0 <= aligned.unsure_share <= 1


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(
    ours=st.sampled_from(["a ", "a b ", "ab", "\u4f60", "[edit] ", "| "]),
    theirs=st.sampled_from(["a ", "b a ", "a\n", "\u4f60", "[edit]\n", "|\n"]),
    end=st.sampled_from(["", "\n"]),
)
def test_hostile_pages_and_answers_end(ours, theirs, end):
    started = time.process_time()
    lines = ((ours + end) * 4_000).split("\n")[:400]
    window = Chunk(0, tuple(line[:12_000] for line in lines))
    begin, close = page_markers("\n".join(window.lines))
    for answer in (f"{begin}{theirs * 3_000}{close}", f"{begin}{theirs * 400_000}{close}"):
        rejection(lambda answer=answer: edits_of_rewrite(window, answer, SynthesisConfig()))
    align_lines([ours * 20] * 2_000, theirs * 30_000)
    assert time.process_time() - started < 60  # quadratic work without a budget takes hours here
