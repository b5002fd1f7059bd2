"""Packing and scoring of sequences on local files, without a lakehouse."""

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from corpusmill.cli import main
from corpusmill.errors import PermanentDataError
from corpusmill.runner.local_files import run_on_files

TEXTS = ["The mill grinds the grain of the whole valley. " * 12, "Nobody asks how long the river carries it. " * 9, "x"]


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.jsonl"
    lines = [{"doc_id": f"d{i}", "text": text} for i, text in enumerate([*TEXTS, None])]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_texts_are_packed_and_scored_by_two_commands(texts, tmp_path, capsys):
    packing, scoring = tmp_path / "packing.yaml", tmp_path / "scoring.yaml"
    packing.write_text(yaml.safe_dump({"length": 64}))
    scoring.write_text(yaml.safe_dump({"unit": "sequence", "context": 64, "device": "cpu"}))
    folder = tmp_path / "packed"
    assert main(["run", "pack", "--input", str(texts), "--output", str(folder), "--config", str(packing)]) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    packed = pq.read_table(folder / "kept.parquet")
    assert report["metrics"]["sequences"] == packed.num_rows >= 2
    assert (report["documents_in"], report["quarantined"]) == (3, {"error.null_text": 1})
    assert report["metrics"]["sequence_tokens"] == packed.num_rows * 64
    sequences = str(folder / "kept.parquet")
    assert main(["run", "score", "--input", sequences, "--output", str(folder), "--config", str(scoring)]) == 0
    scores = pq.read_table(folder / "kept.parquet")
    assert scores["doc_id"].to_pylist() == packed["sequence_id"].to_pylist()
    assert set(scores["unit"].to_pylist()) == {"sequence"}
    assert scores["n_scored"].to_pylist() == [63] * packed.num_rows


def test_sequences_are_not_scored_from_texts(texts, tmp_path):
    run_on_files("pack", texts, tmp_path / "packed", {"length": 64}, print)
    shutil.move(tmp_path / "packed" / "quarantine.parquet", tmp_path / "other.parquet")
    with pytest.raises(PermanentDataError, match=r"lacks.*sequence_id.*corpusmill run pack"):
        run_on_files("score", tmp_path / "other.parquet", tmp_path / "out", {"unit": "sequence", "context": 64}, print)
