"""Packing and its sums on any documents: nothing is lost, every token has one owner, whole documents re-aggregate."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.batches import rows_to_table
from corpusmill.pruning.packing import SequencePacker
from corpusmill.pruning.sequence_sums import document_sums, documents_of, holding
from corpusmill.schema import SCORES, SEQUENCES
from corpusmill.validation.sequence_metrics import sequence_metrics

EOD = 0


@st.composite
def corpora(draw):
    length = draw(st.integers(1, 7))
    sizes = draw(st.lists(st.one_of(st.integers(0, 30), st.integers(1, 4).map(lambda k: k * length - 1)), max_size=12))
    return length, [[1 + (i + j) % 9 for j in range(n)] for i, n in enumerate(sizes)]


def packed(length, documents):
    packer = SequencePacker(EOD, length)
    rows = []
    for number, tokens in enumerate(documents):
        for sequence in packer.add(f"d{number:02}", tokens):
            rows.append(
                {
                    "crawl": "C", "warc_file": "w", "sequence_id": f"s{len(rows):03}", "sequence_index": len(rows),
                    "n_tokens": length, "n_bytes": 3 * len(rows) + 1, "n_documents": len(sequence.spans),
                    "tokens": sequence.tokens, "tokenizer_sha256": "t",
                    "spans": [{"doc_id": s.document, **s._asdict()} for s in sequence.spans],
                }
            )  # fmt: skip
    for row in rows:
        for span in row["spans"]:
            del span["document"]
    return rows_to_table(rows, SEQUENCES.schema), packer.remainder


def scored(sequences):
    rows = [
        {
            "crawl": "C", "doc_id": row["sequence_id"], "warc_file": "w", "unit": "sequence", "score_key": "k",
            "nll_sum": 0.1 + row["sequence_index"], "el2n_sum": 0.5, "n_scored": row["n_tokens"] - 1,
            "n_bytes": row["n_bytes"], "n_tokens": row["n_tokens"],
        }
        for row in sequences.to_pylist()
    ]  # fmt: skip
    return rows_to_table(rows, SCORES.schema)


@settings(deadline=None)
@given(corpora())
def test_sequences_and_remainder_are_the_documents_and_keep_their_contract(corpus):
    length, documents = corpus
    table, remainder = packed(length, documents)
    stream = [t for tokens in documents for t in (*tokens, EOD)]
    assert [t for row in table["tokens"].to_pylist() for t in row] + remainder.tokens == stream
    assert len(remainder.tokens) < length
    owners = pa.chunked_array([pa.array(sorted(set(documents_of(table).to_pylist())), pa.large_string())])
    metrics = sequence_metrics([table, table.slice(0, 0)], length, owners)
    assert metrics["n_sequences"] == len(stream) // length
    assert metrics["n_sequence_tokens"] == len(stream) - len(remainder.tokens)
    broken = ("of_other_length", "with_gaps")
    assert [metrics[f"n_sequences_{name}"] for name in broken] == [0, 0]
    assert metrics["n_duplicate_sequence_ids"] == 0
    assert metrics["n_owners_not_published"] == metrics["n_documents_without_sequence"] == 0


@settings(deadline=None, max_examples=30)  # a query each
@given(corpora(), st.data())
def test_sums_of_sequences_are_those_of_a_document_exactly_where_it_is_whole(corpus, data):
    length, documents = corpus
    table, _ = packed(length, documents)
    kept = table.filter(pa.array([data.draw(st.booleans()) for _ in range(table.num_rows)], pa.bool_()))
    scores = {row["doc_id"]: row for row in scored(table).to_pylist()}
    expected = {}
    for number, tokens in enumerate(documents):
        name = f"d{number:02}"
        rows = [(row, span) for row in kept.to_pylist() for span in row["spans"] if span["doc_id"] == name]
        if not rows:
            continue
        n = sum(span["end"] - span["start"] for _, span in rows)
        whole = n == len(tokens) + 1 and all(span["end"] - span["start"] == length for _, span in rows)
        own = [scores[row["sequence_id"]] for row, _ in rows]
        sums = [sum(row[c] for row in own) if whole else None for c in ("nll_sum", "n_bytes", "n_scored")]
        expected[name] = [n, *sums]
    found = document_sums(kept, scored(table)).to_pylist()
    assert [row["doc_id"] for row in found] == sorted(expected)
    for row in found:
        assert [row[c] for c in ("n_tokens", "nll_sum", "n_bytes", "n_scored")] == expected[row["doc_id"]]


@settings(deadline=None)
@given(corpora(), st.sets(st.integers(0, 11)))
def test_the_sequences_of_documents_are_those_that_hold_a_token_of_one(corpus, numbers):
    table, _ = packed(*corpus)
    names = {f"d{n:02}" for n in numbers}
    expected = [row["sequence_id"] for row in table.to_pylist() if names & {span["doc_id"] for span in row["spans"]}]
    wanted = pa.chunked_array([pa.array(sorted(names), pa.large_string())])
    assert holding(table, wanted).to_pylist() == expected
