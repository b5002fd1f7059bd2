import pytest

from corpusmill.errors import ConfigError
from corpusmill.pruning.packing import Span, pack


def test_documents_are_closed_concatenated_and_cut_and_every_token_has_an_owner():
    packed = pack([[1, 2, 3], [4], [], [5, 6, 7, 8, 9]], eod=0, length=4)
    assert packed.sequences.tolist() == [[1, 2, 3, 0], [4, 0, 0, 5], [6, 7, 8, 9]]
    assert packed.remainder == [0]
    assert packed.spans == [
        [Span(0, 0, 4, first_token=0, document_tokens=4)],
        [Span(1, 0, 2, 0, 2), Span(2, 2, 3, 0, 1), Span(3, 3, 4, first_token=0, document_tokens=6)],
        [Span(3, 0, 4, first_token=1, document_tokens=6)],
    ]


def test_no_token_is_lost_or_invented():
    documents = [list(range(1, n)) for n in (1, 2, 30, 7, 7, 100, 3)]
    packed = pack(documents, eod=0, length=8)
    stream = [token for document in documents for token in (*document, 0)]
    assert [*packed.sequences.flatten().tolist(), *packed.remainder] == stream
    assert len(packed.remainder) == len(stream) % 8
    assert all(spans[0].start == 0 and spans[-1].end == 8 for spans in packed.spans)


def test_too_little_text_gives_no_sequence_but_its_remainder():
    packed = pack([[1]], eod=0, length=8)
    assert packed.sequences.shape == (0, 8)
    assert packed.remainder == [1, 0]


def test_a_sequence_length_below_one_is_refused():
    with pytest.raises(ConfigError, match="length=0"):
        pack([[1]], eod=0, length=0)
