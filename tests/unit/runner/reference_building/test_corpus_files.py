import gzip
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from corpusmill.errors import PermanentDataError
from corpusmill.runner.reference_building.corpus import file_documents


def texts(path):
    return [document.text for document in file_documents(path)]


def test_text_files_are_cut_at_blank_lines(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n\nfirst\nline two\n\n \n\nsecond\n")
    assert texts(path) == ["first\nline two", "second"]
    with gzip.open(tmp_path / "a.txt.gz", "wt") as file:
        file.write("one\n\ntwo")
    assert texts(tmp_path / "a.txt.gz") == ["one", "two"]
    (tmp_path / "empty.txt").write_text("")
    assert texts(tmp_path / "empty.txt") == []


def test_json_lines_and_parquet_keep_their_ids_and_others_get_one_by_place(tmp_path):
    rows = [{"id": "x", "text": "a"}, {"doc_id": "y", "id": "z", "text": ""}, {"text": "c"}, {"id": 0, "text": "d"}]
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    found = list(file_documents(path))
    assert [d.text for d in found] == ["a", "", "c", "d"]
    assert (found[0].doc_id, found[1].doc_id, found[3].doc_id) == ("x", "y", "0")
    assert len(found[2].doc_id) == 36
    pq.write_table(pa.table({"id": ["x", None], "text": ["a", "b"], "other": [1, 2]}), tmp_path / "a.parquet")
    (first, second) = file_documents(tmp_path / "a.parquet")
    assert (first.doc_id, first.text, second.text) == ("x", "a", "b")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "a"}\n{"text": ', "document 2: JSONDecodeError"),
        ("a.jsonl", b'{"text": "a"}\n{"body": "b"}\n', "document 2: KeyError"),
        ("a.jsonl", b'["text"]\n', "document 1: TypeError"),
        ("a.jsonl", b'{"text": null}\n', "document 1: TypeError"),
        ("a.txt", b"fine\n\n\xff\xfe\n", "UnicodeDecodeError"),
        ("a.txt.gz", b"no gzip", "document 1: BadGzipFile"),
        ("a.parquet", b"no parquet", "document 1: ArrowInvalid"),
    ],
)
def test_a_damaged_file_is_named_with_the_place(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PermanentDataError, match=message):
        list(file_documents(tmp_path / name))
