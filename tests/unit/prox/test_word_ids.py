"""Ids put together from a table of words equal those of SentencePiece."""

import io
import random

import pytest

sentencepiece = pytest.importorskip("sentencepiece")

from corpusmill.prox.prompt_tokenizer import load_tokenizer  # noqa: E402
from corpusmill.prox.word_ids import MAX_WORDS, word_ids  # noqa: E402

ALPHABET = [
    "river",
    "x",
    "a",
    "7",
    "19",
    "\n",
    " ",
    "  ",
    "\t",
    "[",
    "]",
    "\u00a0",
    "\u4f60",
    "e\u0301",
    "</s>",
    "\u2581",
]


def trained(**settings):
    rng = random.Random(0)
    lines = ["".join(rng.choices(ALPHABET[:-1], k=12)).replace("\n", " ") for _ in range(400)]
    lines += ["the river water survey", "12,345 pages", "keep_doc()"] * 50
    stream = io.BytesIO()
    options = {"model_type": "bpe", "vocab_size": 420, "byte_fallback": True, "split_digits": True}
    options |= {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=stream, **options | settings)
    return sentencepiece.SentencePieceProcessor(model_proto=stream.getvalue())


def words_of(model):
    return word_ids(
        lambda some: [model.encode(text) for text in some],
        [model.id_to_piece(i) for i in range(model.get_piece_size())],
    )


def texts(n):
    rng = random.Random(1)
    return ["".join(rng.choices(ALPHABET, k=rng.randint(0, 20))) for _ in range(n)]


@pytest.mark.parametrize(
    "settings",
    [{}, {"split_digits": False}, {"allow_whitespace_only_pieces": True}],
    ids=["llama", "digits together", "pieces of spaces"],
)
def test_ids_of_words_put_together_are_the_ids_of_the_text(settings):
    model = trained(**settings)
    words = words_of(model)
    assert words is not None
    some = texts(3000)
    assert [words.encode(text) for text in some] == [model.encode(text) for text in some]
    lines = [text.replace("\n", "") for text in some if text.replace("\n", "")]
    for group in (lines, [line for line in lines if "\u2581" not in line], some, [""], []):
        assert words.encode_batch(group) == [model.encode(text) for text in group]


@pytest.mark.parametrize(
    "settings",
    [{"remove_extra_whitespaces": True}, {"split_by_whitespace": False}, {"treat_whitespace_as_suffix": True}],
    ids=["blanks folded", "pieces across words", "spaces behind words"],
)
def test_a_vocabulary_whose_words_depend_on_their_neighbours_is_left_to_sentencepiece(settings, tmp_path):
    model = trained(**settings)
    assert words_of(model) is None
    (tmp_path / "tokenizer.model").write_bytes(model.serialized_model_proto())
    some = texts(50)
    assert load_tokenizer(tmp_path).encode_batch(some) == [model.encode(text) for text in some]


def test_a_unigram_vocabulary_is_left_to_sentencepiece_for_its_ties_break_by_rounding(tmp_path):
    model = trained(model_type="unigram", vocab_size=340)
    (tmp_path / "tokenizer.model").write_bytes(model.serialized_model_proto())
    some = texts(3000)
    assert load_tokenizer(tmp_path).encode_batch(some) == [model.encode(text) for text in some]
    assert words_of(model).encode_batch(some) != [model.encode(text) for text in some], "else nothing is proved"


def test_the_table_stays_bounded():
    model = trained()
    words = words_of(model)
    for part in range(2):
        some = range(part * 40_000, (part + 1) * 40_000)
        text = " ".join(chr(0x4E00 + n // 300) + chr(0x4E00 + n % 300) for n in some) + " 1\n river"
        words.encode(text)
        assert len(words.table.recent) <= MAX_WORDS
        assert len(words.table.older) <= MAX_WORDS
    assert words.table.older, "else the table was never full"
    for again in (" the river \n7 ", text[:900]):
        assert words.encode(again) == model.encode(again)
    long = "x" * 100_000
    assert words.encode(long) == model.encode(long)
    assert all(len(word) < 100 for word in words.table.recent)


@pytest.mark.parametrize("style", ["compat", "sft"])
def test_only_the_part_of_a_document_that_fits_is_encoded_to_the_same_ids(tmp_path, style):
    model = trained()
    (tmp_path / "tokenizer.model").write_bytes(model.serialized_model_proto())
    encoder = load_tokenizer(tmp_path).encoder
    assert encoder.words_apart
    rng = random.Random(2)
    dense, sparse = ["a", "x", "7", "]", "\n"], ["river", "the river", "keep_doc()", "water survey"]
    documents = [" ".join(rng.choices(kind, k=rng.randint(1, 900))) for kind in (dense, sparse) for _ in range(40)]
    documents += ["a" * 3000, "river " * 300 + "\n" * 2000, "", "a   b  " * 400]
    whole = [encoder.document_ids(text, style, 10**6)[0] for text in documents]
    tail = encoder.encode("[/INST]")
    for limit in (20, 150):
        found = encoder.all_document_ids(documents, style, limit)
        for (ids, cut), full in zip(found, whole, strict=True):
            assert cut == (len(full) > limit)
            kept = full[: limit - len(tail)] + tail if style == "sft" and cut else full[:limit]
            assert ids == kept
