"""What strict mode and compat mode make of programs, beyond the conformance cases."""

import json

import pytest

from corpusmill.prox.execute_once import execute_once
from corpusmill.prox.program import DropDoc, KeepChunk, Normalize, RemoveAll, RemoveLines
from corpusmill.prox.program_execution import ChunkProgram, ExecutionSettings, decide_document, execute
from corpusmill.prox.program_parser import parse_program

TEXT = "\n".join(f"line {n} has several plain words in it" for n in range(12))
STRICT = ExecutionSettings("strict")
COMPAT = ExecutionSettings("compat")


def lines_kept(result):
    return [int(line.split()[1]) for line in result.text.split("\n")]


@pytest.mark.parametrize(
    ("program", "ops"),
    [
        ("remove_lines(start=0, 3)", [RemoveLines(0, 3)]),
        ("remove_lines(0, end=3)", [RemoveLines(0, 3)]),
        ("remove_lines(line_start=1, line_end=2);", [RemoveLines(1, 2)]),
        ("remove_lines(1, 2,)", [RemoveLines(1, 2)]),
        ("remove_lines(all=True)", [RemoveAll()]),
        ("  keep_chunk()  # fine", [KeepChunk()]),
        ("```python\nremove_lines(start=1, end=2)\n```", [RemoveLines(1, 2)]),
        ("# remove_lines(start=1, end=2)", []),
        ("I would call remove_lines(start=1, end=2)", []),
        ('print("remove_lines(start=1, end=2)")', []),
        ("__import__('os').system('true')", []),
        ("normalize('it''s', '')", None),
        ("normalize(\"a\\\"b\", 'c\\'d')", [Normalize('a"b', "c'd")]),
        ('normalize(source_str="say "hi" now", target_str="x")', [Normalize('say "hi" now', "x")]),
        ('normalize(source_str="say "hi" now")', [Normalize('say "hi" now', "")]),
        ('normalize(source_str="a\\nb", target_str="")', [Normalize("a\\nb", "")]),
        ('normalize(target_str="x", source_str="(y), z=1")', [Normalize("(y), z=1", "x")]),
        ('normalize(source_str="http://a.b/c",\n    target_str="")', [Normalize("http://a.b/c", "")]),
        ("remove_lines(start=1, end=2) remove_lines(start=4, end=5)", [RemoveLines(1, 2), RemoveLines(4, 5)]),
        ("remove_lines(start=1234567, end=2)", None),
        ("remove_lines(start=-1, end=2)", None),
        ("remove_lines(start=True, end=2)", None),
        ("remove_lines(start=\u0661, end=2)", None),
        ("normalize(5)", None),
        ('normalize("aa", 5)', None),
    ],
)
def test_strict_grammar(program, ops):
    parsed = parse_program(program, "strict")
    if ops is None:
        assert (parsed.ops, parsed.diagnostics.n_errors) == ((), 1)
    else:
        assert (list(parsed.ops), parsed.diagnostics.n_errors) == (ops, 0)
    assert not parsed.diagnostics.truncated


@pytest.mark.parametrize(
    "last",
    [
        "remove_lines(start=3, end=1",
        "remove_lines(start=3",
        "remove_lines(",
        'normalize(source_str="abc',
        "normalize('a', ",
    ],
)
def test_an_unfinished_last_call_is_ignored_alone_and_counted(last):
    parsed = parse_program(f"remove_lines(start=1, end=2)\n{last}\n\n", "strict")
    assert parsed.ops == (RemoveLines(1, 2),)
    assert parsed.diagnostics.truncated
    assert parsed.diagnostics.n_errors == 0


def test_an_unfinished_call_in_the_middle_is_malformed_where_the_next_line_does_not_close_it():
    parsed = parse_program("remove_lines(start=3,\nremove_lines(start=1, end=2)", "strict")
    assert parsed.ops == (RemoveLines(1, 2),)
    assert parsed.diagnostics.n_errors == 1


def test_strict_errors_void_their_own_chunk_only():
    bad = "remove_lines(x)\nremove_lines(y)\nremove_lines(start=0, end=0)"
    programs = [ChunkProgram(0, 5, bad), ChunkProgram(6, 11, "remove_lines(start=6, end=7)")]
    strict = execute(TEXT, programs, STRICT)
    assert lines_kept(strict) == [0, 1, 2, 3, 4, 5, 8, 9, 10, 11]
    assert [chunk.reason for chunk in strict.chunks] == ["rejected_errors", "edited"]
    assert (strict.reason, strict.n_errors) == ("edited", 2)
    compat = execute(TEXT, programs, COMPAT)
    assert (compat.text, compat.reason, compat.operations) == (TEXT, "rejected_errors", ())


def test_strict_edits_stay_inside_the_lines_that_the_chunk_saw():
    programs = [
        ChunkProgram(0, 5, 'normalize(source_str="plain ", target_str="")\nremove_lines(start=4, end=9)'),
        ChunkProgram(6, 11, "keep_chunk()"),
    ]
    strict = execute(TEXT, programs, STRICT)
    assert lines_kept(strict) == [0, 1, 2, 3, 6, 7, 8, 9, 10, 11]
    assert strict.text.count("plain") == 6
    compat = execute(TEXT, programs, COMPAT)
    assert lines_kept(compat) == [0, 1, 2, 3, 10, 11]
    assert "plain" not in compat.text


def test_all_true_removes_a_chunk_in_strict_mode_and_the_document_in_compat_mode():
    programs = [ChunkProgram(0, 2, "remove_lines(all=True)"), ChunkProgram(3, 11, "keep_chunk()")]
    assert lines_kept(execute(TEXT, programs, STRICT)) == list(range(3, 12))
    assert execute(TEXT, programs, COMPAT).reason == "dropped_ratio"


def test_what_ran_is_recorded_with_lines_and_counts():
    program = 'remove_lines(start=2, end=40)\nnormalize(source_str="several ", target_str="")\nnormalize("absent")'
    result = execute(TEXT, [ChunkProgram(0, 11, program)], STRICT)
    normalize, miss, remove = result.operations
    assert (remove.op, remove.first_line, remove.last_line, remove.n_applied) == ("remove_lines", 2, 11, 10)
    assert (normalize.source, normalize.target, normalize.n_applied) == ("several ", "", 12)
    assert (miss.source, miss.n_applied) == ("absent", 0)
    assert (result.n_calls, result.n_normalize_misses, result.n_errors) == (3, 1, 0)
    assert result.n_words_before - result.n_words_after == 10 * 8 + 2


@pytest.mark.parametrize(
    ("output", "reason", "expected"),
    [
        ("", "", "empty_output"),
        ("", "too_long_prompt", "too_long_prompt"),
        ("sorry, I cannot", "", "unparsed"),
        ("untouch_doc()", "", "kept"),
        ('normalize("absent")', "", "normalize_miss"),
        ('normalize("i", "")', "", "normalize_tiny_source"),
        ("remove_lines(start=1, e", "", "truncated"),
        ("remove_lines(x)\nremove_lines(y)", "", "rejected_errors"),
        ("remove_lines(start=0, end=0)", "", "edited"),
    ],
)
def test_reason_codes(output, reason, expected):
    result = execute(TEXT, [ChunkProgram(0, 11, output, reason)], STRICT)
    assert [chunk.reason for chunk in result.chunks] == [expected]
    assert result.reason == expected


def test_gates_are_settings_with_reasons_of_their_own():
    short = "only six words in this document"
    assert execute(short, [ChunkProgram(0, 0, "keep_chunk()")], STRICT).reason == "dropped_min_words"
    assert execute(short, [ChunkProgram(0, 0, "keep_chunk()")], ExecutionSettings("strict", min_words=5)).text == short
    most = [ChunkProgram(0, 11, "remove_lines(start=2, end=11)")]
    assert execute(TEXT, most, ExecutionSettings("strict", max_removed=0.8)).reason == "dropped_ratio"
    assert execute(TEXT, most, ExecutionSettings("strict", min_kept=0.5)).reason == "rejected_ratio"
    assert execute(" \n", [], COMPAT).reason == "dropped_min_words"


def test_strict_documents_are_decided_by_the_first_call():
    assert parse_program("drop_doc()", "strict").ops == (DropDoc(),)
    assert decide_document("keep_doc()\ndrop_doc()", "strict") == (True, "kept")
    assert decide_document("keep_doc()\ndrop_doc()", "compat") == (False, "dropped_model")
    assert decide_document("drop_", "strict") == (True, "unparsed")
    assert decide_document(" \n", "strict") == (True, "empty_output")


def test_programs_printed_in_the_paper(shared_data):
    cases = [json.loads(line) for line in (shared_data / "prox" / "prox_paper_cases.jsonl").open(encoding="utf-8")]
    assert len(cases) == 12
    for case in cases:
        if "lines" not in case:
            continue
        first = case.get("first_line", 0)
        lines = [f"filler line {n} with enough words to pass" for n in range(first)] + case["lines"]
        text = "\n".join([*lines, "filler behind with enough words to pass every gate of the executor"])
        result = execute(text, [ChunkProgram(0, len(lines), case["program"])], STRICT)
        found = result.text.split("\n")[first:-1]
        expected = case["result"] if "result" in case else [case["lines"][n - first] for n in case["kept"]]
        assert found == expected, case["id"]
    by_id = {case["id"]: case["program"] for case in cases}
    broken = parse_program(by_id["table33-2"], "strict")
    assert (len(broken.ops), broken.diagnostics.n_errors) == (4, 0), "a call over two lines is put together"
    cut = parse_program(by_id["table36-1"], "strict")
    assert (len(cut.ops), cut.diagnostics.n_errors, cut.diagnostics.truncated) == (5, 0, True)
    assert parse_program(by_id["table36-1"], "compat").diagnostics.n_errors == 2


def test_one_program_on_one_text_gives_plain_json():
    answer = execute_once(TEXT, "remove_lines(start=0, end=8)", "strict")
    assert json.loads(json.dumps(answer)) == answer
    assert answer["reason"] == "edited"
    assert answer["text"].startswith("line 9")
    assert answer["operations"][0]["last_line"] == 8


def test_a_thousand_replacements_run_and_more_are_errors():
    for settings in (STRICT, COMPAT):
        program = "\n".join(['normalize(source_str="absent", target_str="")'] * 1000)
        assert execute(TEXT, [ChunkProgram(0, 11, program)], settings).n_errors == 0
        program += '\nnormalize(source_str="line", target_str="x")' * 3
        result = execute(TEXT, [ChunkProgram(0, 11, program)], settings)
        assert (result.text, result.n_errors, result.reason) == (TEXT, 3, "rejected_errors")


def test_thousands_of_overlapping_ranges_remove_each_line_once():
    text = "\n".join(f"line {n} has words" for n in range(4000))
    program = "\n".join(f"remove_lines(start={n}, end={2900 + n % 7})" for n in range(2500))
    for settings in (STRICT, COMPAT):
        result = execute(text, [ChunkProgram(0, 3999, program + "\nremove_lines(start=2, end=3)")], settings)
        assert lines_kept(result)[0] == 2907
        assert sum(operation.n_characters for operation in result.operations) == len(text) - len(result.text)
