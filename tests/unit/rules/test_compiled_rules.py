"""The compiled rules measure and rewrite as the Python definitions do, on anything."""

import random

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from corpusmill.errors import DataError
from corpusmill.rules import c4, fineweb, gopher_quality, gopher_repetition
from corpusmill.rules.c4 import LineRules
from corpusmill.rules.compiled import chunk_lexicon, stored_lexicon, string_buffers
from corpusmill.rules.compiled.chunk_lexicon import ChunkLexicon
from corpusmill.rules.compiled.engine import CompiledRules
from corpusmill.rules.english_tokens import EnglishTokenizer
from corpusmill.rules.segment import Segmenter

RULE_SETS = ("gopher_repetition", "gopher_quality", "c4", "fineweb")
FINEWEB_LINES = LineRules(need_end_punctuation=False)


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter()


@pytest.fixture(scope="module")
def tokenizer():
    return EnglishTokenizer()


@pytest.fixture(scope="module")
def rules(tokenizer):
    return CompiledRules(RULE_SETS, FINEWEB_LINES, ChunkLexicon(tokenizer))


def by_definition(segmenter, text, lines):
    words = segmenter.words(text)
    rewritten = c4.rewrite(text, lines, segmenter.n_sentences)
    measures = {
        **gopher_repetition.line_measures(text),
        **gopher_repetition.n_gram_measures(text, words.words),
        **gopher_quality.line_measures(text),
        **gopher_quality.word_measures(text, words),
        **rewritten.measures,
        **fineweb.line_measures(rewritten.text),
        **fineweb.word_measures(rewritten.text, segmenter.n_words(rewritten.text)),
    }
    return measures, rewritten.text


def compiled(rules, texts):
    """Returns (measures, text) of each text, None where it must go to the Python definitions."""
    return [
        (group.measures(k), group.text(k)) if group.usable[k] else None
        for group in rules.measure(pa.array(texts, pa.large_string()))
        for k in range(len(group.starts))
    ]


BOUNDARIES = [
    "",
    " ",
    "\n",
    "\n\n\n",
    "a",
    "one two three four five.",
    "\r\n\x0b\x1c\x85\u2028\u2029",
    "Foo. [1]\nFoo.[1] bar baz\nx [edit] y z [citation needed]",
    "a b [\u0661\u0662] c. [\u0661 d] [12",
    "u\u017fe\u017f co\u006f\u212aies and USE CO\u004f\u212aIES here\nLorem Ipsum dolor { x }",
    "Terms of Use for all\nplease enable JavaScript now\nthis is a { bracket",
    "... \u2026 .... ......\n- a\n\u2022 b\n-- c...\nd\u2026 ",
    "One. [1]  Two.\tThree [2]  \nFour five six.  [3] Seven!",
    "\u00a0\u3000 wide spaces \u2003 inside\u205f. Next one",
    "x" * 1001 + " y z\n" + "\u00e9" * 1000 + " y z",
    "ab c a bc ab c a bc ab c a bc ab c a bc",
    "the be to of and that have with The",
    "(\u0915) \U0001f600 \U0001f468\u200d\U0001f469 \ufeff \u200b\x00 \x7f",
]


@pytest.mark.parametrize(
    "lines",
    [
        LineRules(),
        FINEWEB_LINES,
        LineRules(None, False, False, None, False, False),
        LineRules(5, True, False, 0, True, True),
    ],
)
def test_boundary_texts_are_measured_and_rewritten_by_definition(segmenter, tokenizer, lines):
    made = CompiledRules(RULE_SETS, lines, ChunkLexicon(tokenizer))
    for text, found in zip(BOUNDARIES, compiled(made, BOUNDARIES), strict=True):
        assert found == by_definition(segmenter, text, lines), repr(text)


WORDS = (
    "the The end. ! ? ... \u2026 \" ) U.S. 1.5 12:30 don't don\u2019t it's we\u2019ve and/or e-mail x\u2014y 10km $5 "
    "[1] [edit] javascript lorem ipsum { } use cookies - \u2022 # 's A. AB. b). \u00e9t\u00e9, \u65e5\u672c IS_DIGIT"
)
PIECES = st.one_of(
    st.sampled_from(WORDS.split()),
    st.text(st.sampled_from("abXS.,:;!?'\"()[]-/_#*$%+19\u2019\u201c\u2013\u2026\u00e9\u00b0<>@|"), max_size=7),
    st.text(max_size=4),
)
GAPS = st.sampled_from([" ", " ", " ", "", "  ", "\n", "\n\n", "\t", "\u00a0", "\u3000", "\x1c", "\u2028", "\r\n"])


@given(st.lists(st.tuples(PIECES, GAPS), max_size=60), st.integers(1, 4))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_text_is_measured_and_rewritten_by_definition(rules, segmenter, parts, repeats):
    text = "".join(piece + gap for piece, gap in parts).encode("utf-8", "replace").decode() * repeats
    found = compiled(rules, [text])[0]
    assert found == by_definition(segmenter, text, FINEWEB_LINES)


def test_a_text_with_the_name_that_spacy_drops_goes_to_the_python_definitions(rules):
    assert compiled(rules, ["a IS_ALPHA b", "IS_ALP[1]HA b c d", "a b"])[:2] == [None, None]


def test_texts_in_other_languages_get_the_measures_of_every_language_and_keep_their_text(rules):
    text = "Ein Satz.\nEin Satz.\nLorem ipsum {"
    group = next(rules.measure(pa.array([text]), [False]))
    measures = group.measures(0)
    expected = {
        **gopher_repetition.line_measures(text),
        **gopher_quality.line_measures(text),
        **fineweb.line_measures(text),
    }
    assert {name: value for name, value in measures.items() if value is not None} == expected
    assert group.text(0) == text


def test_slices_small_strings_and_empty_columns_are_read_as_they_are(rules):
    texts = [f"text number {n} is this one.\nAnd a line." for n in range(9)]
    whole = compiled(rules, texts)
    for kind in (pa.string(), pa.large_string()):
        part = next(rules.measure(pa.array(texts, kind).slice(3, 4)))
        assert [(part.measures(k), part.text(k)) for k in range(4)] == whole[3:7]
    assert list(rules.measure(pa.array([], pa.string()))) == []


def test_columns_that_are_no_text_are_refused(rules):
    with pytest.raises(DataError, match="null"):
        list(rules.measure(pa.array(["a", None])))
    bad = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\2\0\0\0"), pa.py_buffer(b"\xff\xfe"))
    with pytest.raises(DataError, match="UTF-8"):
        list(rules.measure(bad))


def test_a_full_lexicon_goes_back_to_its_base_and_changes_no_result(monkeypatch, tokenizer, segmenter):
    monkeypatch.setattr(chunk_lexicon, "MAX_CHUNKS", 30)
    monkeypatch.setattr(string_buffers, "GROUP_BYTES", 200)
    made = CompiledRules(RULE_SETS, FINEWEB_LINES, ChunkLexicon(tokenizer))
    texts = [f"word{n} can't be a-b{n}, so wait {n}. Mr. X{n} is here (see {n})." for n in range(60)]
    for _ in range(2):
        for text, found in zip(texts, compiled(made, texts), strict=True):
            assert found == by_definition(segmenter, text, FINEWEB_LINES)
    assert made.lexicon.n_chunks < 100


def test_a_lexicon_is_stored_and_loaded_and_asks_spacy_nothing_again(tmp_path, tokenizer, segmenter):
    text = "Mr. Smith can't pay $5.50 for e.g. 10km :) today. Really? Yes!"
    first = CompiledRules(RULE_SETS, FINEWEB_LINES, ChunkLexicon(tokenizer))
    expected = compiled(first, [text])
    stored_lexicon.save(first.lexicon, tmp_path / "lexicon.npz")
    lexicon = ChunkLexicon(tokenizer)
    stored_lexicon.load(lexicon, tmp_path / "lexicon.npz")
    assert compiled(CompiledRules(RULE_SETS, FINEWEB_LINES, lexicon), [text]) == expected
    assert (lexicon.n_asked, lexicon.n_chunks) == (0, first.lexicon.n_chunks)
    assert [path.name for path in tmp_path.iterdir()] == ["lexicon.npz"]


def test_damaged_absent_and_foreign_lexicons_are_refused(tmp_path, tokenizer, monkeypatch):
    path = tmp_path / "lexicon.npz"
    lexicon = ChunkLexicon(tokenizer)
    with pytest.raises(DataError, match="cannot be read"):
        stored_lexicon.load(lexicon, path)
    path.write_bytes(b"no lexicon")
    with pytest.raises(DataError, match="damaged"):
        stored_lexicon.load(lexicon, path)
    stored_lexicon.save(lexicon, path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged"):
        stored_lexicon.load(lexicon, path)
    path.write_bytes(whole)
    monkeypatch.setattr(stored_lexicon, "FORMAT", 2)
    with pytest.raises(DataError, match="was made with"):
        stored_lexicon.load(lexicon, path)


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "a\n" * 1_000_000,
        "the same line again and again.\n" * 100_000,
        "".join(random.Random(3).choices("ab ", k=1_000_000)),
        "x" * 10_000_000,
        "!?,;" * 500_000,
    ],
    ids=["short lines", "one line", "two letters", "one word", "marks"],
)
def test_hostile_texts_are_measured_by_definition(rules, segmenter, text):
    assert compiled(rules, [text])[0] == by_definition(segmenter, text, FINEWEB_LINES)
