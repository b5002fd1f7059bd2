"""Packing to disk: equal to packing in memory, of the same bytes for any batching, in bounded memory."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from corpusmill.errors import ConfigError, ModelError
from corpusmill.pruning import packed_text
from corpusmill.pruning.packed_text import open_sequences, read_facts, write_packed_text
from corpusmill.pruning.packing import pack


class Letters:
    """A tokenizer of UTF-8 bytes, with the end token 256."""

    eod_id = 256
    n_vocab = 257

    def encode_batch(self, texts):
        return [list(text.encode()) for text in texts]


TEXTS = ["the mill", "", "ünïcode 日本", "x" * 50, "a\ud800b", "", "end"]


@pytest.mark.parametrize("batch", [1, 10, 10**6])
def test_the_file_holds_what_packing_in_memory_gives(tmp_path, monkeypatch, batch):
    monkeypatch.setattr(packed_text, "BATCH_CHARACTERS", batch)
    facts = write_packed_text(TEXTS, Letters(), 8, tmp_path)
    clean = [text.replace("\ud800", "\ufffd") for text in TEXTS]
    expected = pack(Letters().encode_batch(clean), 256, 8)
    assert open_sequences(tmp_path, facts).tolist() == expected.sequences.tolist()
    assert (facts.n_dropped, facts.n_documents) == (len(expected.remainder), len(TEXTS))
    assert facts.n_bytes == sum(len(text.encode()) for text in clean)
    assert facts.bytes_per_token == pytest.approx(facts.n_bytes / (facts.n_bytes + len(TEXTS)))
    assert read_facts(tmp_path) == facts
    assert facts.dtype == "<u2"


def test_ids_that_need_more_than_two_bytes_get_four(tmp_path):
    class Many(Letters):
        n_vocab = 70_000

        def encode_batch(self, texts):
            return [[69_999] * len(text) for text in texts]

    facts = write_packed_text(["abc" * 5], Many(), 4, tmp_path)
    assert facts.dtype == "<u4"
    assert set(open_sequences(tmp_path, facts).ravel().tolist()) == {69_999, 256}


def test_a_limit_stops_reading_and_too_little_text_is_no_sequence(tmp_path):
    def endless():
        while True:
            yield "the mill grinds on " * 1000

    facts = write_packed_text(endless(), Letters(), 16, tmp_path / "a", max_sequences=5)
    assert (facts.n_sequences, facts.n_tokens) == (5, 80)
    facts = write_packed_text(["abc"], Letters(), 16, tmp_path / "b")
    assert open_sequences(tmp_path / "b", facts).shape == (0, 16)
    assert facts.n_dropped == 4


def test_a_file_that_was_cut_and_a_tokenizer_without_an_end_are_errors(tmp_path):
    facts = write_packed_text(TEXTS, Letters(), 8, tmp_path)
    with pytest.raises(ModelError, match="has 176 bytes, expected 192"):
        open_sequences(tmp_path, replace(facts, n_sequences=facts.n_sequences + 1))
    with pytest.raises(ConfigError, match="context=1 of packed sequences"):
        write_packed_text(TEXTS, Letters(), 1, tmp_path)
    endless = Letters()
    endless.eod_id = None
    with pytest.raises(ConfigError, match="names no end-of-document token"):
        write_packed_text(TEXTS, endless, 8, tmp_path)
    assert read_facts(tmp_path / "nothing") is None


def test_memory_does_not_grow_with_the_corpus(tmp_path, monkeypatch):
    monkeypatch.setattr(packed_text, "BATCH_CHARACTERS", 10_000)

    def peak(n):
        tracemalloc.start()
        facts = write_packed_text(("the mill " * 100 for _ in range(n)), Letters(), 64, tmp_path / str(n))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top, facts.n_tokens

    small, large = peak(50), peak(1000)
    assert large[1] > 19 * small[1]
    assert large[0] < 1.2 * small[0]
    assert np.dtype("<u2").itemsize * large[1] > 2 * large[0]
