"""Drafts are learned: from the grammar at first, from what is written then, and nothing where nothing is known."""

import random

from corpusmill.prox.program_drafts import MAX_CONTEXTS, MAX_DRAFT, DraftTable, RowDraft

PIECES = (*(bytes([i]) for i in range(256)), None)
EOS = 256


def encode(text):
    return list(text.encode())


def table():
    return DraftTable(PIECES, encode, EOS)


def after(text, rows=None, prompt=""):
    row = RowDraft(rows or table(), encode(prompt))
    for token in encode(text):
        row.accept(token)
    return bytes(row.propose(MAX_DRAFT)).decode()


def test_the_grammar_is_known_from_the_start():
    assert after("remove_l").startswith("ines(start=")
    assert after("remove_lines(start=7").startswith(", end=7")
    assert after("remove_lines(start=7, end=9)").startswith("\nremove_lines(start=")
    assert after("normalize(sou").startswith('rce_str="')


def test_the_spelling_of_a_model_is_learned():
    rows = table()
    assert not after("drop_lines[", rows).startswith("from 1 to")
    row = RowDraft(rows, ())
    for token in encode("drop_lines[from 1 to 1]\n" * 20):
        row.accept(token)
    assert after("drop_lines[", rows).startswith("from ")
    assert after("drop_lines[from 5", rows).startswith(" to 5")


def test_a_number_is_guessed_by_the_usual_distance():
    rows, row = table(), None
    row = RowDraft(rows, ())
    for number in range(0, 90, 3):
        for token in encode(f"remove_lines(start={number}, end={number + 1})\n"):
            row.accept(token)
    assert after("remove_lines(start=40, end=41)\nremove_lines(start=", rows).startswith("43, end=44)")
    assert after("remove_lines(start=40, end=41)\nremove_lines(start=4", rows).startswith("3, end=44)")


def test_sources_are_copied_from_the_prompt():
    prompt = "[003]Sign up for our newsletter"
    assert after('normalize(source_str="Sign up f', prompt=prompt)[:8] == "or our n"


def test_a_model_that_writes_no_programs_is_soon_drafted_next_to_nothing():
    row, rng = RowDraft(table(), encode("some prompt")), random.Random(0)
    drafted = []
    for _ in range(2000):
        row.accept(rng.choice(b"abcdefghilmnorstu_(="))
        drafted.append(len(row.propose(MAX_DRAFT)))
    assert sum(drafted[-500:]) < 0.2 * 500


def test_limits_hold():
    row = RowDraft(table(), ())
    for token in encode("remove_lines(start=1, end=1)"):
        row.accept(token)
    assert row.propose(3) == encode("\nre")
    assert row.propose(0) == []
    assert EOS not in row.propose(MAX_DRAFT)
    for digits in ("9" * 400, "0" * 400):
        for token in encode(digits):
            row.accept(token)
        row.propose(MAX_DRAFT)
    assert len(row.table.following) < MAX_CONTEXTS


def test_without_known_bytes_tokens_alone_are_learned():
    rows = DraftTable(None, encode, EOS)
    assert after("remove_lines(st", rows).startswith("art=")
