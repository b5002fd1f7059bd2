"""The kernel: errors, settings, reports, batches, document ids."""

import pickle

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from corpusmill import errors
from corpusmill.batches import replace_surrogates, rows_to_table, slices
from corpusmill.config import StageConfig, fingerprint
from corpusmill.report import StageReport, merge_reports
from corpusmill.schema import OPS_TABLES, PAGES, RECIPE_TABLES, doc_id_of, text_digest


class Example(StageConfig):
    """An example."""

    size: int = 3
    """A number."""


@pytest.mark.parametrize("name", [n for n in dir(errors) if isinstance(getattr(errors, n), type)])
def test_every_error_survives_pickling(name):
    kind = getattr(errors, name)
    if not issubclass(kind, errors.CorpusmillError):
        return
    copy = pickle.loads(pickle.dumps(kind("what was wrong: 'x'")))
    assert type(copy) is kind
    assert str(copy) == "what was wrong: 'x'"


def test_no_error_is_both_permanent_and_transient():
    kinds = [getattr(errors, n) for n in dir(errors) if isinstance(getattr(errors, n), type)]
    both = [k for k in kinds if issubclass(k, errors.Permanent) and issubclass(k, errors.Transient)]
    assert both == []


def test_wrong_settings_name_the_field_the_value_and_what_was_expected():
    with pytest.raises(errors.ConfigError, match=r"size='three'.*valid integer"):
        Example.load({"size": "three"})
    with pytest.raises(errors.ConfigError, match=r"colour='red'.*not permitted"):
        Example.load({"colour": "red"})


def test_fingerprints_do_not_depend_on_key_order_and_differ_by_value():
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert Example(size=3).fingerprint() != Example(size=4).fingerprint()
    assert len(Example().fingerprint()) == 16


def test_reports_of_shards_add_up():
    a = StageReport("clean", "C", "0", 3, 2, removed={"x": 1}, metrics={"m": 1.5}, skipped=True)
    b = StageReport("clean", "C", "1", 4, 1, removed={"x": 2, "y": 1}, metrics={"m": 2.0})
    total = merge_reports("clean", "C", [a, b])
    assert (total.documents_in, total.documents_kept, total.documents_removed) == (7, 3, 4)
    assert total.removed == {"x": 3, "y": 1}
    assert total.metrics == {"m": 3.5}
    assert not total.skipped
    assert StageReport.from_json(total.to_json() | {"of a later version": 1}) == total


def test_a_crawl_without_shards_was_not_skipped():
    assert not merge_reports("clean", "C", []).skipped


@given(st.text(st.characters(), max_size=40))
def test_surrogates_become_replacement_characters_and_are_counted(text):
    clean, n = replace_surrogates(text)
    clean.encode("utf-8")
    assert n == sum("\ud800" <= c <= "\udfff" for c in text)
    assert len(clean) == len(text)


def test_rows_with_an_unknown_column_are_refused():
    schema = pa.schema([("a", pa.int64()), ("b", pa.int64())])
    assert rows_to_table([{"a": 1}], schema).to_pylist() == [{"a": 1, "b": None}]
    with pytest.raises(KeyError, match="c"):
        rows_to_table([{"c": 1}], schema)


def test_slices_cover_every_row_once():
    table = pa.table({"a": list(range(10))})
    assert [s.num_rows for s in slices(table, 4)] == [4, 4, 2]
    assert list(slices(table.slice(0, 0), 4)) == []


def test_a_document_id_is_the_records_uuid_else_a_hash_of_its_place():
    assert (
        doc_id_of("<urn:uuid:0C6E2D52-6D34-4AE0-9C0A-2C9B6B8D9A11>", "f", 0) == "0c6e2d52-6d34-4ae0-9c0a-2c9b6b8d9a11"
    )
    places = {doc_id_of(None, "f", 0), doc_id_of("", "f", 1), doc_id_of("not a uuid", "g", 0)}
    assert len(places) == 3
    assert doc_id_of(None, "f", 0) == doc_id_of(None, "f", 0)


def test_the_digest_is_defined_on_every_text():
    assert len({text_digest(t) for t in ("", "a", "\x00", "\ud800", "a" * 10**6)}) == 5


@pytest.mark.parametrize("spec", [PAGES, *RECIPE_TABLES, *OPS_TABLES], ids=lambda s: s.name)
def test_every_table_names_only_columns_that_it_has(spec):
    names = set(spec.schema.names)
    assert set(spec.partition) <= names
    assert set(spec.sort) <= names
    assert all(not spec.schema.field(c).nullable for c in spec.partition)


class Nested(StageConfig):
    """Settings that hold others."""

    example: Example | None = None
    many: dict[str, int] = Field(default_factory=dict)


def test_an_unknown_key_is_told_with_the_keys_that_its_place_takes():
    with pytest.raises(errors.ConfigError, match=r"exemple=1: .*not permitted; keys here: example, many$"):
        Nested.load({"exemple": 1})
    with pytest.raises(errors.ConfigError, match=r"example\.colour='red': .*not permitted; keys here: size$"):
        Nested.load({"example": {"colour": "red"}})
