"""What the contract of packed sequences refuses."""

import pyarrow as pa
import pytest

from corpusmill.batches import rows_to_table
from corpusmill.schema import SEQUENCES
from corpusmill.validation.contract import check_contract
from corpusmill.validation.sequence_checks import corpus_sequence_checks, packing_checks
from corpusmill.validation.sequence_metrics import sequence_metrics


def sequence(number, spans, tokens=4, stated=None):
    return {
        "crawl": "C", "warc_file": "w", "sequence_id": f"s{number}", "sequence_index": number, "n_bytes": 4,
        "n_tokens": tokens if stated is None else stated, "n_documents": len(spans), "tokens": list(range(tokens)),
        "tokenizer_sha256": "t",
        "spans": [
            {"doc_id": d, "start": a, "end": b, "first_token": 0, "document_tokens": 9} for d, a, b in spans
        ],
    }  # fmt: skip


SOUND = [sequence(0, [("a", 0, 4)]), sequence(1, [("a", 0, 1), ("b", 1, 2), ("c", 2, 4)])]


def failed(rows, documents=("a", "b", "c"), **numbers):
    metrics = sequence_metrics(
        [rows_to_table(rows, SEQUENCES.schema)], 4, pa.chunked_array([pa.array(documents, pa.large_string())])
    )
    n = len(SOUND)
    counts = {"packed_sequences": n, "assembled_sequences": n, "branch_sequences": n, "n_tokens": 4 * n, **numbers}
    results = check_contract([*packing_checks(), *corpus_sequence_checks()], metrics | counts)
    return {r.name for r in results if not r.passed}


def test_sound_sequences_pass():
    assert failed(SOUND) == set()


@pytest.mark.parametrize(
    ("spans", "name"),
    [
        ([("a", 0, 3)], "an end without an owner"),
        ([("a", 1, 4)], "a beginning without an owner"),
        ([("a", 0, 2), ("b", 3, 4)], "a gap"),
        ([("a", 0, 3), ("b", 2, 4)], "two owners"),
        ([("b", 2, 4), ("a", 0, 2)], "another order"),
        ([("a", 0, 0), ("b", 0, 4)], "an empty span"),
        ([], "no owner"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_spans_that_do_not_cover_a_sequence_once_in_order_are_refused(spans, name):
    assert "sequences.spans_cover_each_once_in_order" in failed([SOUND[0], sequence(1, spans)]), name


def test_another_length_is_refused_whether_stated_or_held():
    whole = sequence(1, [("a", 0, 3)], tokens=3)
    assert "sequences.have_one_length" in failed([SOUND[0], whole])
    assert "sequences.have_one_length" in failed([SOUND[0], sequence(1, [("a", 0, 4)], tokens=3, stated=4)])


def test_ids_counts_and_documents_must_agree():
    assert failed([SOUND[1], SOUND[1]]) == {"sequences.unique_id"}
    assert "corpus_sequences.owners_are_published" in failed(SOUND, documents=("a", "b"))
    assert failed(SOUND, documents=("a", "b", "c", "d")) == {"corpus_sequences.documents_have_a_sequence"}
    assert failed(SOUND, n_tokens=7) == {"corpus_sequences.tokens_agree"}
    assert failed(SOUND, packed_sequences=3) == {"sequences.table_holds_what_shards_wrote"}
    assert "corpus_sequences.branch_holds_what_was_assembled" in failed(SOUND, branch_sequences=3)
    assert "corpus_sequences.not_empty" in failed([])
