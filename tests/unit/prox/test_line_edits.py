"""Line edits: blank lines, windows, and what a strict program can and cannot say."""

import pytest

from corpusmill.prox.line_edits import LineEdits, executed, program_fault, settled, write_edits
from corpusmill.prox.training_examples import ChunkExample, Provenance

TEACHER = Provenance(route="gold", teacher="people")


def edits_of(text, removed=(), deletions=None, unsure=(), first=0):
    """Edits of lines; a deletion is given by its text, which stands once on its line."""
    lines = tuple(text.split("\n"))
    spans = {
        n: tuple((lines[n - first].index(part), lines[n - first].index(part) + len(part)) for part in parts)
        for n, parts in (deletions or {}).items()
    }
    return settled(LineEdits(first, lines, frozenset(removed), spans, frozenset(unsure)))


def example(program, lines=("a", "b", "c"), first=10):
    return ChunkExample(doc_id="d", first_line=first, lines=lines, program=program, provenance=TEACHER)


@pytest.mark.parametrize(
    ("text", "removed", "settled_to"),
    [
        ("menu\n\nlogin\n\ntext", {0, 2}, {0, 1, 2}),
        ("\nmenu\ntext", {1}, {0, 1}),
        ("text\nfooter\n\n", {1}, {1, 2, 3}),
        ("text\n\nmore", set(), set()),
        ("text\n\nmore", {1}, set()),
        ("\n\n", set(), set()),
    ],
    ids=["between removed", "above the first", "below the last", "between kept", "alone", "only blanks"],
)
def test_blank_lines_go_with_their_neighbours(text, removed, settled_to):
    assert edits_of(text, removed).removed == settled_to


def test_a_line_cut_to_nothing_is_removed_and_an_unsure_line_is_left_alone():
    edits = edits_of("Share this\ntext here\nmaybe", {2}, {0: ["Share", " this"], 2: ["maybe"]}, unsure={2})
    assert edits.removed == {0}
    assert edits.deletions == {}
    assert edits.unsure == {2}


def test_numbers_in_programs_are_those_of_the_document():
    edits = edits_of("menu\nlogin\ntext [edit] here", {70, 71}, {72: ["[edit] "]}, first=70)
    written = write_edits(edits)
    assert written.program == 'remove_lines(start=70, end=71)\nnormalize(source_str="[edit] ", target_str="")'
    made = ChunkExample(doc_id="d", first_line=70, lines=edits.lines, program=written.program, provenance=TEACHER)
    assert executed(made) == "text here"
    assert program_fault(made) == ""


def test_a_string_is_deleted_where_all_its_occurrences_on_lines_that_stay_go():
    everywhere = write_edits(edits_of("one [x]\ntwo [x]\nmenu [x]", {2}, {0: [" [x]"], 1: [" [x]"]}))
    assert everywhere.program.count("normalize") == 1
    assert everywhere.n_undone == 0


def test_a_string_that_stays_elsewhere_is_left_and_its_line_is_unsure():
    written = write_edits(edits_of("an apple for you\nan apple for me", (), {0: ["apple "]}))
    assert written.program == "keep_chunk()"
    assert written.n_undone == 5
    assert written.done.unsure == {0}
    assert written.done.deletions == {}


def test_a_longer_string_can_free_a_shorter_one():
    written = write_edits(edits_of("see http://x and http://x/y\nend", (), {0: ["http://x and ", "http://x/y"]}))
    assert executed(example(written.program, ("see http://x and http://x/y", "end"), 0)) == "see \nend"
    assert written.n_undone == 0


def test_single_characters_are_never_named():
    written = write_edits(edits_of("one | two", (), {0: ["| "]}))
    assert written.program == "keep_chunk()"
    assert written.n_undone == 1


def test_windows_of_lines_carry_their_edits():
    edits = edits_of("menu\ntext [x] a\nfooter\nmore", {0, 2}, {1: ["[x] "]}, unsure={3})
    parts = edits.windows(1000, 2)
    assert [part.first_line for part in parts] == [0, 2]
    assert [part.removed for part in parts] == [{0}, {2}]
    assert [bool(part.deletions) for part in parts] == [True, False]
    assert [part.unsure for part in parts] == [set(), {3}]


@pytest.mark.parametrize(
    "program",
    [
        "",
        "remove_lines(start=9, end=11)",
        "remove_lines(start=11, end=13)",
        "remove_lines(start=12, end=11)",
        "remove_lines(all=True)",
        "keep_chunk()\nremove_lines(start=10, end=10)",
        'normalize(source_str="missing", target_str="")',
        'normalize(source_str="a", target_str="b")',
        "remove_lines(start=10, end=1",
        "remove_lines(start=10)",
        "delete_lines(start=10, end=10)",
        "import os",
        "drop_doc()",
    ],
)
def test_programs_that_are_not_right_are_told(program):
    assert program_fault(example(program)) != ""


def test_right_programs_have_no_fault():
    for program in ("keep_chunk()", "remove_lines(start=10, end=12)", 'normalize(source_str="b", target_str="")'):
        assert program_fault(example(program)) == ""
