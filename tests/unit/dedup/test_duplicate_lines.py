"""Repeated lines of a crawl: an oracle of ten lines, hostile texts, any order."""

import random
import tracemalloc

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corpusmill.dedup.config import LinesConfig
from corpusmill.dedup.duplicate_lines import NOTHING_LEFT, SHORTENED, TOO_LITTLE_LEFT, DuplicateLines
from corpusmill.dedup.text_units import unit_digest, unit_spans
from corpusmill.schema import DUPLICATE_LINES, STRING

Files = dict[str, dict[str, str]]
LINE = "subscribe to our weekly news letter"
OTHER = "the river of the valley carried the bridge"


def find(files: Files, batch_units: int = 100_000, order: list[str] | None = None, **config) -> pa.Table:
    ids = pa.array([doc_id for documents in files.values() for doc_id in documents], STRING)
    with DuplicateLines("C", ids, list(files), LinesConfig(**config), batch_units) as lines:
        for file in order or list(files):
            columns = [pa.chunked_array([list(part)], STRING) for part in zip(*files[file].items(), strict=True)]
            lines.add(file, *(columns or [pa.chunked_array([], STRING)] * 2))
        parts = list(lines.rows())
    return pa.concat_tables([DUPLICATE_LINES.schema.empty_table(), *parts])


def answers(found: pa.Table) -> dict[str, tuple[str, dict[int, tuple[str, int]]]]:
    return {
        row["doc_id"]: (
            row["reason"],
            {unit["unit"]: (unit["duplicate_of"], unit["duplicate_of_unit"]) for unit in row["removed"]},
        )
        for row in found.to_pylist()
    }


def oracle(documents: dict[str, str], unit: str, min_words: int, max_removed: float):
    spans = {i: list(unit_spans(text, unit)) for i, text in documents.items()}
    keys = {i: [unit_digest(documents[i][a:b], min_words) for a, b in spans[i]] for i in sorted(documents)}

    def matches(holders):
        places = [(key, (i, n)) for i in keys if i in holders for n, key in enumerate(keys[i]) if key]
        first = dict(reversed(places))
        return {i: {n: first[k] for n, k in enumerate(keys[i]) if first.get(k, (i, n)) != (i, n)} for i in keys}

    share = {i: sum(spans[i][n][1] - spans[i][n][0] for n in lost) for i, lost in matches(documents).items()}
    total = {i: sum(b - a for a, b in spans[i]) for i in documents}
    gone = {i for i in documents if share[i] and (share[i] == total[i] or share[i] > max_removed * total[i])}
    every, rest = matches(documents), matches(set(documents) - gone)
    reason = {i: NOTHING_LEFT if share[i] == total[i] else TOO_LITTLE_LEFT for i in gone}
    both = {i: (reason.get(i, SHORTENED), every[i] if i in gone else rest[i]) for i in documents}
    return {i: (why, lost) for i, (why, lost) in both.items() if lost}


UNIT = st.sampled_from(["a b", "b a", "a  b", "a b c d e f", "c", "", " ", "d e f g", "x y z"])
TEXT = st.lists(UNIT, max_size=6).map("\n".join)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from([f"{n:03d}" for n in range(12)]), TEXT, max_size=8),
    st.sampled_from(["line", "paragraph"]),
    st.integers(1, 4),
    st.sampled_from([0.3, 0.5, 1.0]),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_the_database_answers_as_the_oracle(documents, unit, min_words, max_removed, batch, rng):
    files: Files = {"x": {}, "y": {}, "z": {}}
    for doc_id, text in documents.items():
        files[rng.choice("xyz")][doc_id] = text
    order = list(files)
    rng.shuffle(order)
    found = find(files, batch, order, unit=unit, min_words=min_words, max_removed=max_removed)
    assert answers(found) == oracle(documents, unit, min_words, max_removed)
    assert [(row["warc_file"], row["doc_id"]) for row in found.to_pylist()] == sorted(
        (file, doc_id) for file in files for doc_id in files[file] if doc_id in answers(found)
    )
    for row in found.to_pylist():
        spans = list(unit_spans(documents[row["doc_id"]], unit))
        assert [(u["start"], u["end"]) for u in row["removed"]] == [spans[u["unit"]] for u in row["removed"]]
        assert row["n_units"] == len(spans)
        assert row["n_units_removed"] == len(row["removed"])
        assert row["n_chars_removed"] == sum(u["end"] - u["start"] for u in row["removed"])
        assert row["kept"] == (row["reason"] == SHORTENED)


def test_the_document_with_the_lowest_id_keeps_the_line_whatever_file_it_is_in():
    files = {"x": {"c": f"{OTHER} one\n{LINE}"}, "y": {"a": f"{LINE}\n{OTHER} two"}, "z": {"b": f"{OTHER}\n{LINE}"}}
    found = answers(find(files))
    assert found == {"b": (SHORTENED, {1: ("a", 0)}), "c": (SHORTENED, {1: ("a", 0)})}
    assert all(find(files, order=order).equals(find(files)) for order in (["z", "y", "x"], ["y", "z", "x"]))


def test_a_line_whose_first_holder_goes_as_a_whole_stays_with_the_next():
    files = {
        "x": {"a": LINE, "b": f"{LINE}\n{OTHER}", "c": f"{OTHER}\n{LINE} of today and of every other day of the year"}
    }
    found = answers(find(files, max_removed=0.4))
    assert found == {"b": (TOO_LITTLE_LEFT, {0: ("a", 0)})}, "c keeps what b was the first to hold"


def test_a_document_that_loses_everything_goes_whatever_the_share():
    found = find({"x": {"a": LINE, "b": f"\n{LINE}\n"}}, max_removed=1.0)
    assert answers(found) == {"b": (NOTHING_LEFT, {0: ("a", 0)})}
    assert found["kept"].to_pylist() == [False]


def test_short_and_empty_lines_are_never_removed():
    assert find({"x": {"a": "Read more\n\n\n", "b": "Read more\n\n\n", "c": ""}}).num_rows == 0
    assert find({"x": {}}).num_rows == 0


def test_a_crawl_of_documents_without_repeats_loses_nothing():
    assert find({"x": {"a": LINE}, "y": {"b": OTHER}}).num_rows == 0


def test_an_id_that_was_not_announced_is_refused():
    with (
        DuplicateLines("C", pa.array(["a"], STRING), ["x"], LinesConfig()) as lines,
        pytest.raises(KeyError, match="'b'"),
    ):
        lines.add("x", pa.chunked_array([["b"]], STRING), pa.chunked_array([[LINE]], STRING))


def test_a_hundred_thousand_repeats_of_one_line_leave_one():
    n = 100_000
    found = find({"x": {"a": "\n".join([LINE] * n) + f"\n{OTHER}", "b": f"{LINE}\n{OTHER} now"}}, max_removed=0.999999)
    rows = {row["doc_id"]: row for row in found.select(["doc_id", "n_units_removed", "n_units", "kept"]).to_pylist()}
    assert rows["a"] == {"doc_id": "a", "n_units_removed": n - 1, "n_units": n + 1, "kept": True}
    assert rows["b"]["n_units_removed"] == 1
    units = found["removed"][0].values
    assert units.field("duplicate_of").unique().to_pylist() == ["a"]
    assert units.field("duplicate_of_unit").unique().to_pylist() == [0]


def test_a_line_of_ten_megabytes_is_compared_like_any_other():
    rng = random.Random(0)
    long = " ".join(str(rng.random()) for _ in range(550_000))
    assert len(long) > 10_000_000
    found = find({"x": {"a": f"{long}\n{OTHER}"}, "y": {"b": f"{OTHER}\n{long.replace(' ', '  ')}"}}, max_removed=1.0)
    assert answers(found) == {"b": (NOTHING_LEFT, {0: ("a", 1), 1: ("a", 0)})}


def test_memory_does_not_grow_with_the_repeats():
    lines = "\n".join(f"{LINE} {n % 7}" for n in range(200))
    files = {f"{f}": {f"{f:03d}-{d}": lines for d in range(10)} for f in range(10)}
    tracemalloc.start()
    try:
        found = find(files, batch_units=1000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sum(found["n_units_removed"].to_pylist()) == 100 * 200 - 7
    assert peak < 3_000_000, "Python holds a batch of units, not the crawl's 20,000"
