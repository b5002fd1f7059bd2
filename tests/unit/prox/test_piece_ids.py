"""Ids by compiled merging equal those of SentencePiece, on any text and any vocabulary."""

import gzip
import io
import json
import os
import random
import sys
from pathlib import Path

import pytest

sentencepiece = pytest.importorskip("sentencepiece")
pytest.importorskip("numba")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from corpusmill.prox import piece_ids as piece_ids_module  # noqa: E402
from corpusmill.prox.piece_ids import piece_ids  # noqa: E402
from corpusmill.prox.piece_merging import MAX_WORD  # noqa: E402
from corpusmill.prox.prompt_tokenizer import load_tokenizer  # noqa: E402

SHARED = Path(os.environ.get("CORPUSMILL_SHARED_DATA", Path(__file__).parents[4] / "shared" / "data"))

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


def trained(lines=None, **options):
    rng = random.Random(0)
    if lines is None:
        lines = ["".join(rng.choices(ALPHABET[:-1], k=12)).replace("\n", " ") for _ in range(400)]
        lines += ["the river water survey", "12,345 pages", "keep_doc()"] * 50
    stream = io.BytesIO()
    wanted = {"model_type": "bpe", "vocab_size": 420, "byte_fallback": True, "split_digits": True}
    wanted |= {"normalization_rule_name": "identity", "remove_extra_whitespaces": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=stream, num_threads=1, **wanted | options
    )
    return sentencepiece.SentencePieceProcessor(model_proto=stream.getvalue())


def encode_many(model):
    return lambda some: [model.encode(text) for text in some]


def merging(model):
    return piece_ids(model.serialized_model_proto(), encode_many(model))


def texts(n):
    rng = random.Random(1)
    return ["".join(rng.choices(ALPHABET, k=rng.randint(0, 20))) for _ in range(n)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"split_digits": False},
        {"allow_whitespace_only_pieces": True},
        {"split_by_unicode_script": False, "vocab_size": 600},
    ],
    ids=["llama", "digits together", "pieces of spaces", "scripts together"],
)
def test_merged_ids_are_those_of_sentencepiece(options):
    model = trained(**options)
    ids = merging(model)
    assert ids is not None
    some = [*texts(3000), "x" * (MAX_WORD - 1), "x" * (3 * MAX_WORD), "a" * MAX_WORD + " a", " " * (2 * MAX_WORD) + "x"]
    assert ids.encode_batch(some) == [model.encode(text) for text in some]
    assert ids.encode_batch([]) == []
    assert ids.encode_batch(["", "", "a", ""]) == [[], [], model.encode("a"), []]


MODEL = trained()
IDS = merging(MODEL)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.text(st.one_of(st.sampled_from("xariver 7\n\t[\u2581"), st.characters(codec="utf-8"))), max_size=4))
def test_merged_ids_of_any_text_are_those_of_sentencepiece(some):
    assert IDS.encode_batch(some) == [MODEL.encode(text) for text in some]


def test_every_character_has_the_ids_that_sentencepiece_gives_it():
    characters = [chr(code) for code in range(0x11000) if not 0xD800 <= code < 0xE000] + ["\U0001f600", "\U0010ffff"]
    some = ["a" + "".join(characters[place : place + 64]) for place in range(0, len(characters), 64)]
    assert IDS.encode_batch(some) == [MODEL.encode(text) for text in some]


def test_ids_of_labelled_pages_are_those_of_sentencepiece():
    path = SHARED / "refine" / "dev.jsonl.gz"
    if not path.is_file():
        pytest.skip("no shared data")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        pages = [json.loads(line)["lines"] for line in file]
    model = trained([line for page in pages[::8] for line in page if line.strip()], vocab_size=1000)
    ids = merging(model)
    some = ["\n".join(page) for page in pages] + [f"[{i:03d}]{line}" for page in pages for i, line in enumerate(page)]
    assert ids.encode_batch(some) == model.encode(some, num_threads=1)


def test_a_text_with_lone_surrogates_is_refused():
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        IDS.encode_batch(["a\ud800"])


@pytest.mark.parametrize(
    "options",
    [
        {"remove_extra_whitespaces": True},
        {"split_by_whitespace": False},
        {"treat_whitespace_as_suffix": True},
        {"normalization_rule_name": "nmt_nfkc"},
        {"add_dummy_prefix": False},
        {"byte_fallback": False, "vocab_size": 200},
        {"user_defined_symbols": ["river"]},
        {"model_type": "unigram", "vocab_size": 340},
    ],
    ids=lambda options: next(iter(options)),
)
def test_a_vocabulary_of_another_kind_is_left_to_sentencepiece(options, tmp_path):
    model = trained(**options)
    assert merging(model) is None
    (tmp_path / "tokenizer.model").write_bytes(model.serialized_model_proto())
    some = texts(300)
    assert load_tokenizer(tmp_path).encode_batch(some) == [model.encode(text) for text in some]


def test_without_numba_sentencepiece_itself_encodes(monkeypatch, tmp_path):
    monkeypatch.setattr(piece_ids_module.importlib.util, "find_spec", lambda _: None)
    assert merging(MODEL) is None
    (tmp_path / "tokenizer.model").write_bytes(MODEL.serialized_model_proto())
    assert load_tokenizer(tmp_path).encode_batch(["the river"]) == [MODEL.encode("the river")]


def test_where_kernels_cannot_be_kept_sentencepiece_itself_encodes(monkeypatch, tmp_path, caplog):
    from numba.core.caching import CacheImpl

    monkeypatch.setattr(CacheImpl, "_locator_classes", [])  # as on a read-only disk without a home folder
    monkeypatch.delitem(sys.modules, "corpusmill.prox.piece_merging")
    (tmp_path / "tokenizer.model").write_bytes(MODEL.serialized_model_proto())
    assert load_tokenizer(tmp_path).encode_batch(["the river"]) == [MODEL.encode("the river")]
    assert "no locator available" in caplog.text


def test_kernels_are_kept_where_those_of_the_rules_are():
    from corpusmill.kernel_folder import cache_folder

    assert list(cache_folder().glob("prox_*/piece_merging.merge_texts-*.nbc"))


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
