"""Cutting units in windows, and encoding ahead of the model."""

import threading

import pyarrow as pa
import pytest

from corpusmill.pruning.windows import (
    FIRST_GROUP,
    LARGEST_GROUP,
    Unit,
    cut_windows,
    group_bounds,
    read_ahead,
    text_units,
)


def test_windows_do_not_overlap_and_leave_out_what_cannot_be_scored():
    ids = list(range(10, 17))
    windows = cut_windows(3, ids, context=3, prefix=())
    assert [w.ids for w in windows] == [[10, 11, 12], [13, 14, 15]], "a lone last token has no context"
    assert [w.first for w in windows] == [True, False]
    assert {w.unit for w in windows} == {3}
    prefixed = cut_windows(0, ids, context=3, prefix=(9,))
    assert [w.ids for w in prefixed] == [[9, 10, 11], [9, 12, 13], [9, 14, 15], [9, 16]]
    assert cut_windows(0, [], 3, (9,)) == cut_windows(0, [5], 3, ()) == []


def groups_of(batch):
    return [batch.slice(start, end - start) for start, end in group_bounds(batch.num_rows)]


@pytest.mark.parametrize("n", [0, 1, FIRST_GROUP, FIRST_GROUP + 1, 512, 1300])
def test_groups_cover_all_rows_in_order_and_depend_on_their_number_alone(n):
    parts = groups_of(pa.table({"i": list(range(n))}))
    groups = list(read_ahead(parts, lambda part: [Unit([i], 1) for i in part.column("i").to_pylist()]))
    assert [unit.ids[0] for group in groups for unit in group] == list(range(n))
    assert all(len(group) <= LARGEST_GROUP for group in groups)


def test_the_next_group_is_read_while_the_caller_works_on_one():
    batch = pa.table({"i": list(range(FIRST_GROUP * 3))})
    second_started = threading.Event()

    def read(part):
        if part.column("i")[0].as_py() > 0:
            second_started.set()
        return [Unit([], 0)] * part.num_rows

    groups = read_ahead(groups_of(batch), read)
    next(groups)
    assert second_started.wait(10), "nobody asked for the second group yet"
    assert len(list(groups)) == 1


def test_an_error_of_the_reader_reaches_the_caller():
    def read(part):
        raise ValueError("column 'text' is absent")

    with pytest.raises(ValueError, match="is absent"):
        list(read_ahead([pa.table({"i": [1]})], read))


class FailsOn:
    """A tokenizer that fails on one word, and on any batch that holds it."""

    def encode_batch(self, texts):
        if any("poison" in text for text in texts):
            raise Exception("normalizer")
        return [[len(text)] for text in texts]


def test_a_text_that_the_tokenizer_fails_on_costs_no_other():
    units = text_units(pa.table({"text": ["ab", "poison", None, ""]}), FailsOn())
    assert [(u.ids, u.fault) for u in units] == [
        ([2], None),
        ([], "error.tokenizer"),
        ([], "error.null_text"),
        ([0], None),
    ]
    assert [u.n_bytes for u in units] == [2, 6, 0, 0]
