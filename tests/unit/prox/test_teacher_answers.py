"""Scores and programs of teachers: what is read, what is refused and why; nothing is ever evaluated."""

import pytest

from corpusmill.prox.chunking import Chunk
from corpusmill.prox.line_edits import RejectedError
from corpusmill.prox.teacher_answers import edits_of_programs, keeps_document, parse_score

PAGE = Chunk(
    20,
    (
        "Home | News",
        "Log in",
        "The survey of 1931 (see http://x.org/a?b=1) counted herons.",
        "",
        "http://x.org/download",
        "Share this page",
        "(c) 2009",
    ),
)


def fenced(code):
    return f"Here is what I found.\n```python\n{code}\n```\n"


def reason_of(call):
    with pytest.raises(RejectedError) as caught:
        call()
    return caught.value.reason


@pytest.mark.parametrize(
    ("part", "answer", "score"),
    [
        ("educational", "It teaches.\nEducational score: 4", 4),
        ("educational", "educational Score: **3**", 3),
        ("educational", "Educational score: 3 at first.\nEducational score: 3/5", 3),
        ("format", "Good.\nExtraction Quality Score: 0", 0),
    ],
)
def test_scores_are_read_from_their_line(part, answer, score):
    assert parse_score(part, answer) == score


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "no_score"),
        ("Extraction Quality Score: 3", "no_score"),
        ("Educational score: <total points>", "no_score"),
        ("The page says 'Educational score: 5'.\nEducational score: 1", "ambiguous_score"),
        ("Educational score: 50", "score_out_of_range"),
        ("Educational score: " + "9" * 5000, "score_out_of_range"),
        ("x" * 2_000_000, "no_score"),
    ],
    ids=["empty", "other score", "template", "quoted by the page", "too high", "endless", "megabytes"],
)
def test_answers_without_one_valid_score_are_refused(answer, reason):
    assert reason_of(lambda: parse_score("educational", answer)) == reason


@pytest.mark.parametrize(
    ("educational", "layout", "keeps"),
    [(5, 0, True), (3, 0, True), (2, 4, True), (2, 5, True), (2, 3, False), (1, 5, False), (0, 0, False)],
)
def test_the_keep_rule_of_the_paper(educational, layout, keeps):
    assert keeps_document(educational, layout) is keeps


def test_three_programs_are_merged():
    edits = edits_of_programs(
        PAGE,
        [
            ("navigation", fenced("# [020]Home | News\n# [021]Log in\nremove_lines(start=20, end=21)")),
            (
                "links",
                fenced(
                    "remove_lines(start=24, end=24)\n"
                    'normalize(source_str=" (see http://x.org/a?b=1)", target_str="")\n'
                    'normalize(source_str="Share", target_str="")'
                ),
            ),
            ("footers", fenced("# [025] Share this...\nremove_lines(start=24, end=26)")),
        ],
    )
    assert edits.removed == {20, 21, 24, 25, 26}
    assert edits.kept() == [(22, "The survey of 1931 counted herons."), (23, "")]


def test_untouched_text_has_no_edits():
    edits = edits_of_programs(PAGE, [(part, fenced("untouch_doc()")) for part in ("navigation", "links", "footers")])
    assert not edits.removed
    assert not edits.deletions


def test_a_target_inside_its_source_is_a_deletion():
    edits = edits_of_programs(PAGE, [("links", fenced('normalize(source_str="Log in", target_str="in")'))])
    assert edits.kept()[1] == (21, "in")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "no_program"),
        ("remove_lines(start=20, end=21)", "no_program"),
        ("```python\nremove_lines(start=20, end=21)", "no_program"),
        (fenced("# nothing"), "no_program"),
        (fenced("untouch_doc()") + fenced("untouch_doc()"), "several_programs"),
        (fenced("remove_lines(start=20, end=len(doc))"), "malformed_program"),
        (fenced("remove_lines(start=20, end=2"), "malformed_program"),
        (fenced("remove_lines(start=27, end=27)"), "line_out_of_range"),
        (fenced("remove_lines(start=1, end=2)"), "line_out_of_range"),
        (fenced("remove_lines(start=0, end=999999999999)"), "malformed_program"),
        (fenced("remove_lines(all=True)"), "removes_everything"),
        (fenced("drop_doc()"), "other_calls"),
        (fenced("untouch_doc()\nremove_lines(start=20, end=20)"), "keeps_and_edits"),
        (fenced("# [020]Log in\nremove_lines(start=20, end=20)"), "shifted_lines"),
        (fenced("# [022]Log in\nremove_lines(start=22, end=22)"), "shifted_lines"),
        (fenced("# [020]Imprint\nremove_lines(start=20, end=20)"), "misquoted_line"),
        (fenced("# [090]Home\nremove_lines(start=20, end=20)"), "misquoted_line"),
        (fenced('normalize(source_str="not there", target_str="")'), "source_not_found"),
        (fenced('normalize(source_str="Log in", target_str="Sign in")'), "inserts_text"),
        (fenced('normalize(source_str="g", target_str="")'), "tiny_source"),
        (fenced("remove_lines(start=20, end=20)\n" * 2000), "too_many_calls"),
        (fenced("import os\nos.system('touch /tmp/x')"), "other_calls"),
        (fenced("__import__('os').system('id')"), "other_calls"),
        (fenced("exec(\"open('x', 'w')\")"), "other_calls"),
        (fenced("[remove_lines(start=n, end=n) for n in range(9)]"), "other_calls"),
        (fenced("(" * 500_000), "other_calls"),
        ("garbage \x00 " * 100_000, "no_program"),
    ],
)
def test_bad_programs_are_refused_with_their_reason(answer, reason):
    assert reason_of(lambda: edits_of_programs(PAGE, [("navigation", answer)])) == reason
