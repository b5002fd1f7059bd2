"""Files of JSON lines: any damage is one error that names file and line; a written file is whole or absent."""

import gzip

import pytest

from corpusmill.errors import PermanentDataError
from corpusmill.prox.json_lines import read_json_lines, written_whole

ROWS = [{"text": "river \u4f60"}, {"n": 2}]
WHOLE = gzip.compress(b'{"n": 1}\n' * 5000, mtime=0)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_what_was_written_is_read_with_its_line_numbers(tmp_path, name):
    path = tmp_path / name
    with written_whole(path) as file:
        file.write('{"text": "river \u4f60"}\n\n   \n{"n": 2}')
    assert list(read_json_lines(path, "a row")) == [(1, ROWS[0]), (4, ROWS[1])]
    assert (path.read_bytes()[:2] == b"\x1f\x8b") == name.endswith(".gz")


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.jsonl", b'{"n": 1}\n{"n"', "a.jsonl line 2 cannot be read as JSON"),
        ("b.jsonl", b'{"n": 1}\n\xff\xfe', "b.jsonl line"),
        ("c.jsonl", b"[" * 200_000, "c.jsonl line 1 cannot be read as JSON"),
        ("d.jsonl.gz", b'{"n": 1}\n', "d.jsonl.gz cannot be read behind line 0"),
        ("e.jsonl.gz", WHOLE[: len(WHOLE) // 2], "e.jsonl.gz cannot be read behind line"),
        (
            "f.jsonl.gz",
            WHOLE[:10] + b"\xff" * 64 + WHOLE[74:],
            "f.jsonl.gz cannot be read behind line",
        ),
        ("g.jsonl", None, "g.jsonl does not exist; expected a file of JSON lines, each a row of ours"),
    ],
    ids=["cut", "not UTF-8", "deep", "no gzip", "cut gzip", "damaged gzip", "absent"],
)
def test_damage_is_an_error_that_names_file_and_place(tmp_path, name, data, said):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(PermanentDataError, match=said):
        list(read_json_lines(tmp_path / name, "a row of ours"))


def test_an_interrupted_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("old\n")

    def interrupted():
        with written_whole(path) as file:
            file.write("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]
    assert path.read_text() == "old\n"
