"""The conformance runner counts every line and fails on anything that is no passing case."""

import json
import subprocess
import sys

import pytest

from corpusmill.conformance import main, run_files

PASSING = {
    "id": 0,
    "stage": "doc",
    "input": "a text",
    "program": "raindrop",
    "expected": "",
    "better": "a text",
}


def write(path, *lines):
    path.write_bytes(
        b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines) + b"\n"
    )
    return path


def test_every_line_is_counted_once(tmp_path, capsys):
    path = write(
        tmp_path / "cases.jsonl",
        PASSING,
        {**PASSING, "better": ""},
        {**PASSING, "expected": "a text"},
        {**PASSING, "stage": "poem"},
        {**PASSING, "stage": ["doc"]},
        {"kind": "poem"},
        {"id": 3},
        {"stage": "doc"},
        b"{",
        b"[]",
        b"",
        b"\xff\xfe",
        PASSING,
    )
    assert main([str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "2 passed, 11 failed, 0 skipped\n"
    assert captured.err.count("FAILED") == 11
    assert "cases.jsonl:2" in captured.err


def test_a_passing_file_exits_with_zero_with_or_without_a_last_line_feed(tmp_path, capsys):
    path = tmp_path / "cases.jsonl"
    path.write_text("\n".join([json.dumps(PASSING)] * 3))
    assert main([str(path), str(path)]) == 0
    assert capsys.readouterr().out == "6 passed, 0 failed, 0 skipped\n"


@pytest.mark.parametrize("content", [None, b""])
def test_absent_and_empty_files_fail(tmp_path, content, capsys):
    path = tmp_path / "cases.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert main([str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == "0 passed, 0 failed, 0 skipped\n"
    assert "cases.jsonl" in captured.err


def test_chunk_errors_are_part_of_a_case(tmp_path):
    case = {
        "stage": "chunk",
        "input": "one two three four five six seven eight nine ten eleven twelve",
        "program": "remove_lines(x)",
        "expected": "one two three four five six seven eight nine ten eleven twelve",
        "errors": 1,
    }
    assert run_files([write(tmp_path / "good.jsonl", case)]).ok
    assert not run_files([write(tmp_path / "bad.jsonl", {**case, "errors": 0})]).ok


def test_all_prox_cases_pass(shared_data):
    path = shared_data.parent / "conformance" / "prox_conformance.jsonl"
    if not path.is_file():
        pytest.skip(f"no conformance cases at {path}")
    run = subprocess.run(
        [sys.executable, "-m", "corpusmill.conformance", str(path)], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (0, "79 passed, 0 failed, 0 skipped\n"), run.stderr
