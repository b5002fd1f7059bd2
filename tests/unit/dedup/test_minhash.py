"""Signatures are datatrove's, by the definition and by kernels; keys name band and values."""

import hashlib
import os
import sys

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("numba")

from corpusmill.dedup import minhash
from corpusmill.dedup.compiled import shingle_engine
from corpusmill.dedup.compiled.shingle_engine import CompiledShingler
from corpusmill.dedup.compiled.shingle_kernels import hash_texts
from corpusmill.dedup.compiled.simplify_table import N_LISTED
from corpusmill.dedup.minhash import (
    NO_SIGNATURE,
    Signer,
    band_keys,
    has_signature,
    key_column,
    random_functions,
    sort_order,
    sorted_bands,
)
from corpusmill.dedup.shingles import english_words, shingles
from corpusmill.dedup.simplification import simplify
from corpusmill.dedup.xxh64 import xxh64
from corpusmill.errors import ConfigError, DataError
from corpusmill.rules.compiled import string_buffers

STRINGS = pa.large_string()


@pytest.fixture(scope="module")
def compiled():
    return Signer(engine="compiled")


@pytest.fixture(scope="module")
def reference():
    return Signer(engine="reference")


def column(*texts, strings=STRINGS):
    return pa.array(texts, strings)


def test_the_definition_of_xxh64_is_that_of_the_package_at_every_length_to_200():
    xxhash = pytest.importorskip("xxhash")
    for n in range(200):
        data = os.urandom(n)
        assert xxh64(data) == xxhash.xxh64_intdigest(data)


def test_the_kernel_of_xxh64_is_that_of_the_package_at_every_length_to_300():
    xxhash = pytest.importorskip("xxhash")
    texts = [os.urandom(n) for n in range(300)]
    found = np.zeros(len(texts), dtype=np.uint64)
    hash_texts(np.frombuffer(b"".join(texts), np.uint8), np.cumsum([len(t) for t in texts]), found)
    assert found.tolist() == [xxhash.xxh64_intdigest(text) for text in texts]


def test_random_functions_are_those_of_datatrove():
    factors, summands = random_functions(112)
    assert (factors[0], summands[0]) == (775169054918279404, 1062448801025099917)


def test_simplification_is_that_of_datatrove():
    assert simplify("Crème BRÛLÉE, 12.5 or 1.2.3 (two)!") == "creme brulee 0 or 0 0 two"
    assert simplify(" \u0301 a\u0301\tb\u3000\uff11 ") == "a b 0"


@pytest.mark.slow
def test_every_character_is_simplified_as_by_definition():
    step = 4096
    shingler = CompiledShingler(1, str.split)
    for first in range(0, N_LISTED + step, step):
        points = [p for p in range(first, first + step) if not 0xD800 <= p < 0xE000]
        texts = [f"x{chr(p)}y {chr(p)} 1{chr(p)}2" for p in points]
        (group,) = shingler.groups(column(*texts))
        expected = [shingles(text, str.split, 1) for text in texts]
        assert group.ends.tolist() == np.cumsum([len(e) for e in expected]).tolist()
        assert group.hashes.tolist() == np.concatenate(expected).tolist()


def test_a_text_has_a_signature_from_five_words_on(compiled, reference):
    texts = column(None, "", " \n", "one", "one two three four", "one two three four five", "a. b! c? d; e")
    for signer in (compiled, reference):
        found = signer.signatures(texts)
        assert has_signature(found).tolist() == [False] * 5 + [True] * 2
        assert (found[:5] == NO_SIGNATURE).all()
        assert (found[5:] < 2**61 - 1).all()
    assert compiled.signatures(texts).tolist() == reference.signatures(texts).tolist()


def test_values_are_those_that_datatrove_gives(compiled):
    found = compiled.signatures(column("The quick brown fox jumps over the lazy dog."))
    assert hashlib.blake2b(found.astype("<u8").tobytes(), digest_size=8).hexdigest() == "964a4a8563191933"


def test_case_punctuation_marks_and_numbers_do_not_matter(compiled):
    texts = column("Caf\u00e9 number 7, open: late!", "cafe NUMBER 12.5 open late", "cafe number 7 open early")
    found = compiled.signatures(texts)
    assert (found[0] == found[1]).all()
    assert (found[0] != found[2]).any()


def test_slices_string_types_and_groups_make_no_difference(compiled, monkeypatch):
    texts = [f"text {n} of a few words more " * (n % 5) for n in range(40)]
    expected = compiled.signatures(column(*texts))
    assert (compiled.signatures(column("x", *texts).slice(1)) == expected).all()
    assert (compiled.signatures(column(*texts, strings=pa.string())) == expected).all()
    monkeypatch.setattr(string_buffers, "GROUP_BYTES", 100)
    assert (compiled.signatures(column(*texts)) == expected).all()
    assert compiled.signatures(column()).shape == (0, 112)


def test_texts_too_long_for_kernels_are_signed_by_definition(compiled, monkeypatch):
    texts = column("a b c d e f g", "short", "h i j k l m n")
    expected = compiled.signatures(texts)
    monkeypatch.setattr(shingle_engine, "MAX_TEXT_BYTES", 3)
    monkeypatch.setattr(string_buffers, "GROUP_BYTES", 1)
    assert (compiled.signatures(texts) == expected).all()


def test_a_splitter_of_another_language_serves_both_engines():
    texts = column("\u65e5\u672c\u8a9e\u306e\u6587\u3067\u3059", "abcdefg", "")
    found = [Signer(engine=engine, words=list, ngram=3).signatures(texts) for engine in ("compiled", "reference")]
    assert (found[0] == found[1]).all()
    assert has_signature(found[0]).tolist() == [True, True, False]


def test_bytes_that_are_no_utf8_are_refused(compiled):
    texts = pa.array([b"a b c \xff d e f"], pa.large_binary()).view(pa.large_string())
    with pytest.raises(DataError, match="not valid UTF-8"):
        compiled.signatures(texts)


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="bands=0"):
        Signer(bands=0)
    with pytest.raises(ConfigError, match="ngram=0"):
        Signer(ngram=0)
    with pytest.raises(ConfigError, match="engine='fast'"):
        Signer(engine="fast")
    with pytest.raises(ConfigError, match="bands=5"):
        band_keys(np.zeros((1, 112), np.uint64), 5)


@pytest.mark.slow
def test_huge_documents_take_bounded_memory(compiled):
    resource = pytest.importorskip("resource")
    texts = ["many words of a text " * 500_000, "a\n" * 1_000_000, "x" * 10_000_000, "line\n" * 100_000]
    compiled.signatures(column("warm up the kernels and the tables"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = [compiled.signatures(column(text))[0] for text in texts]
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 400_000_000
    assert [bool(row[0] != NO_SIGNATURE) for row in found] == [True, True, False, True]
    assert (found[3] == compiled.signatures(column("line line line line line"))[0]).all()


def test_keys_are_digests_of_band_and_values():
    found = np.arange(224, dtype=np.uint64).reshape(2, 112)
    found[1] = NO_SIGNATURE
    keys = band_keys(found)
    expected = hashlib.blake2b((3).to_bytes(4, "little") + found[0, 24:32].tobytes(), digest_size=16).digest()
    assert keys[0, 3].tobytes() == expected
    assert not any(key.tobytes().strip(b"\0") for key in keys[1])
    assert key_column(keys[0]).to_pylist() == [key.tobytes() for key in keys[0]]


def test_bands_with_the_same_values_have_different_keys():
    keys = band_keys(np.ones((1, 112), dtype=np.uint64))
    assert len(set(keys[0].tolist())) == 14


def test_bands_are_sorted_by_key_as_bytes_then_by_id():
    rng = np.random.default_rng(1)
    found = rng.integers(0, 1 << 60, size=(400, 112)).astype(np.uint64)[rng.integers(0, 200, 400)]
    found[7] = NO_SIGNATURE
    ids = rng.permutation(1000)[:400]
    bands = list(sorted_bands(found, ids))
    assert len(bands) == 14
    for keys, members in bands:
        pairs = [(key.tobytes(), member) for key, member in zip(keys, members.tolist(), strict=True)]
        assert pairs == sorted(pairs)
        assert set(members.tolist()) == set(ids.tolist()) - {ids[7]}


@pytest.mark.parametrize("distinct", [1, 3, 5000])
def test_keys_are_ordered_whatever_their_bits_are(distinct):
    rng = np.random.default_rng(2)
    words = rng.integers(0, 2**63, size=(distinct, 2)).astype(np.uint64)[rng.integers(0, distinct, 5000)]
    words[:1000, 0] &= np.uint64(0xFF00000000000000)
    keys, ids = words.view(minhash.KEY_TYPE).reshape(-1), rng.permutation(5000)
    pairs = [(key.tobytes(), member) for key, member in zip(keys, ids.tolist(), strict=True)]
    assert [pairs[k] for k in sort_order(keys, ids).tolist()] == sorted(pairs)


def test_words_are_english_by_default():
    assert english_words()("i cant go") == ["i", "ca", "nt", "go"]
