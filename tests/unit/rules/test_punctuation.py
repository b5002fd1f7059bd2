"""The character sets are those of the reference, to the last character."""

import hashlib

from corpusmill.rules.punctuation import END_MARKS, PUNCTUATION, SYMBOLS, TERMINAL_PUNCTUATION


def _sha256(characters):
    return hashlib.sha256("".join(sorted(characters)).encode()).hexdigest()


def test_the_sets_have_the_digests_of_the_reference():
    assert (len(PUNCTUATION), len(TERMINAL_PUNCTUATION), len(SYMBOLS)) == (129, 159, 281)
    assert _sha256(SYMBOLS) == "add6d54a8847e51ecc60aeb110417c1bc08a89fbe827b378ddd5e66f78641863"
    assert _sha256(TERMINAL_PUNCTUATION) == "223fdebf0f76873809176fd2d6d8872e39bdc969664a293b233a45ce7fc396ab"


def test_bullet_and_quotes_are_no_end_marks():
    assert not {"\u2022", "\u00a9", " ", "\n", "\t"} & SYMBOLS
    assert not {'"', "\u2026", ":"} & set(END_MARKS)
