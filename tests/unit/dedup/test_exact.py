"""Exact duplicates: which copies are named, which survive."""

import itertools

import pyarrow as pa

from corpusmill.dedup.exact import find_exact_duplicates
from corpusmill.schema import DUPLICATES


def documents(*rows: tuple[str, str]) -> pa.Table:
    ids, digests = [r[0] for r in rows], [r[1] for r in rows]
    return pa.table(
        {
            "doc_id": pa.array(ids, pa.large_string()),
            "warc_file": pa.array(["a.warc.gz"] * len(rows), pa.large_string()),
            "dedup_digest": pa.array(digests, pa.large_string()),
        }
    )


def answers(table: pa.Table) -> dict[str, tuple[str, str, bool]]:
    return {r["doc_id"]: (r["duplicate_of"], r["duplicate_of_crawl"], r["kept"]) for r in table.to_pylist()}


def test_the_lowest_document_id_survives_within_a_crawl():
    found = find_exact_duplicates(documents(("c", "x"), ("a", "x"), ("b", "x"), ("d", "y")), "C2", [])
    assert found.schema == DUPLICATES.schema
    assert answers(found) == {"a": ("a", "C2", True), "b": ("a", "C2", False), "c": ("a", "C2", False)}


def test_every_copy_goes_where_an_older_crawl_published_the_text():
    older = [("C1", documents(("z", "x"))), ("C0.5", documents(("y", "x")))]
    found = find_exact_duplicates(documents(("a", "x"), ("b", "x")), "C2", older)
    assert answers(found) == {"a": ("z", "C1", False), "b": ("z", "C1", False)}


def test_the_oldest_crawl_of_the_base_is_named_not_the_lowest_id():
    older = [("C0", documents(("z", "x"))), ("C1", documents(("a", "x")))]
    found = find_exact_duplicates(documents(("m", "x")), "C2", older)
    assert answers(found) == {"m": ("z", "C0", False)}


def test_a_document_without_a_copy_is_not_named():
    assert find_exact_duplicates(documents(("a", "x"), ("b", "y")), "C2", []).num_rows == 0
    assert find_exact_duplicates(documents(), "C2", [("C1", documents(("a", "x")))]).num_rows == 0


def test_the_answer_does_not_depend_on_the_order_of_rows():
    rows = [("c", "x"), ("a", "x"), ("b", "y"), ("d", "y")]
    older = [("C1", documents(("o", "y")))]
    tables = [find_exact_duplicates(documents(*p), "C2", older) for p in itertools.permutations(rows)]
    assert all(t.equals(tables[0]) for t in tables)
