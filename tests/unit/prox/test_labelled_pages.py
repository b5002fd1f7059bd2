"""Labelled files: reading, refusal with the line's number, and labels carried over to another extraction."""

import gzip
import json

import numpy as np
import pytest

from corpusmill.errors import PermanentDataError
from corpusmill.prox.labelled_pages import LabelledPage, carry_labels, page_with_text, read_labelled_pages


def make_page(lines, labels):
    return LabelledPage("id", "d", "human", tuple(lines), np.array(labels, dtype=np.int8))


def test_pages_are_read_with_labels_from_plain_and_gzip_files(tmp_path):
    row = {"doc_id": "x", "domain": "d", "tier": "silver", "lines": ["a", "b", "c"], "remove": [0], "unsure": [2]}
    (tmp_path / "p.jsonl").write_text(json.dumps(row) + "\n\n")
    with gzip.open(tmp_path / "p.jsonl.gz", "wt") as file:
        file.write(json.dumps(row))
    for name in ("p.jsonl", "p.jsonl.gz"):
        (page,) = read_labelled_pages(tmp_path / name)
        assert page.labels.tolist() == [1, 0, -1]
        assert page.tier == "silver"


def test_a_line_break_inside_a_line_shifts_no_numbers(tmp_path):
    (tmp_path / "p.jsonl").write_text(json.dumps({"lines": ["a\nb", "c"], "remove": [1]}))
    (page,) = read_labelled_pages(tmp_path / "p.jsonl")
    assert page.lines == ("a b", "c")


@pytest.mark.parametrize(
    "content",
    ['{"lines": ["a"], "remove": [3]}', '{"lines": ["a"], "remove": [-1]}', '{"lines": ["a"]}', "[]", "{", ""],
    ids=["no such line", "negative line", "field missing", "no object", "no json", "empty"],
)
def test_a_file_in_another_format_is_refused(tmp_path, content):
    (tmp_path / "p.jsonl").write_text(content)
    with pytest.raises(PermanentDataError, match=r"p\.jsonl"):
        read_labelled_pages(tmp_path / "p.jsonl")


def test_labels_follow_equal_lines_in_order():
    source = make_page(["Home", "News", "First text.", "News", "Second text."], [1, 1, 0, 0, 0])
    carried = carry_labels(source, ["First  text.", "", "\u2022 News", "Something else", "Second text."])
    assert carried.labels.tolist() == [0, -1, 0, -1, 0]


def test_a_line_out_of_order_takes_a_label_only_where_all_equal_lines_agree():
    source = make_page(["A", "B", "C", "A", "D"], [1, 1, 0, 0, 0])
    assert carry_labels(source, ["C", "D", "B"]).labels.tolist() == [0, 0, 1]
    assert carry_labels(source, ["C", "D", "A"]).labels.tolist()[:2] == [0, 0]


def test_blank_lines_can_be_taken_out_with_their_labels():
    page = page_with_text(make_page(["", "a", " ", "b"], [-1, 0, -1, 1]))
    assert page.lines == ("a", "b")
    assert page.labels.tolist() == [0, 1]
