"""The trainer with the signature of all trainers: labelled pages or training examples in, a measured folder out."""

import json
import random

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")

from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from corpusmill.errors import ConfigError, PermanentDataError  # noqa: E402
from corpusmill.prox.labelled_pages import KEEP, REMOVE, UNSURE, LabelledPage, read_labelled_pages  # noqa: E402
from corpusmill.prox.program_model_folder import chunk_config, read_record  # noqa: E402
from corpusmill.prox.program_model_training import page_examples, settled_labels, train_program_model  # noqa: E402
from corpusmill.prox.refiner import load_chunk_refiner  # noqa: E402
from corpusmill.prox.training_examples import DocumentExample, Provenance, write_examples  # noqa: E402

WORDS = ["river", "water", "survey", "page", "snow", "melt", "spring", "data"]
SMALL = {"batch_examples": 2, "context": 256, "max_target_tokens": 48, "n_vocab": 420, "evaluations": 1}


def write_pages(path, numbers, domain):
    rng = random.Random(0)
    rows = []
    for number in numbers:
        lines = ["home menu login", *(" ".join(rng.choices(WORDS, k=5)) for _ in range(4)), "share"]
        row = {"doc_id": str(number), "domain": f"{domain}{number}.org", "tier": "human", "lines": lines}
        rows.append(json.dumps({**row, "remove": [0, 5], "unsure": [2]}))
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def files(tmp_path):
    torch.set_num_threads(1)
    return write_pages(tmp_path / "train.jsonl", range(8), "a"), write_pages(tmp_path / "dev.jsonl", range(4), "b")


def test_pages_are_trained_on_and_measured_as_every_refiner_is(files, tmp_path):
    out = tmp_path / "model"
    quality = train_program_model(*files, out, steps=2, base="new:test", settings={**SMALL, "device": "cpu"})
    assert quality["full_text"]["n_pages"] == 4
    assert quality["full_text"]["dev_domains_in_training"] == 0
    assert {"keep_f1", "char_f1", "remove_f1", "macro", "all", "validity"} <= set(quality["full_text"])
    record = read_record(out)
    assert record["quality"]["full_text"] == quality["full_text"]
    assert record["training"]["settings"]["keep_share"] is None
    assert record["training"]["command"] == (
        "corpusmill build-refiner --kind program-model --train train.jsonl --dev dev.jsonl --base=new:test --steps=2 "
        "--seed=0"
    )
    assert load_chunk_refiner(chunk_config(out, device="cpu")).split("a line")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dev.jsonl", "model", "train.jsonl"]


def test_training_examples_are_taken_as_they_are(tmp_path):
    provenance = Provenance(route="scores", teacher="a model")
    examples = [
        DocumentExample(doc_id=str(i), text="river data " * (i + 3), decision=decision, provenance=provenance)
        for i, decision in enumerate(["keep", "drop"] * 4)
    ]
    file = tmp_path / "examples.jsonl"
    write_examples(file, examples)
    quality = train_program_model(
        file, file, tmp_path / "m", steps=1, base="new:test", settings={**SMALL, "device": "cpu"}
    )
    assert quality["validation"]["n_documents"] == 8
    assert read_record(tmp_path / "m")["task"] == "document"


def test_wrong_settings_and_files_are_named(files, tmp_path):
    with pytest.raises(ConfigError, match="learning_rat"):
        train_program_model(*files, tmp_path / "m", steps=1, settings={"learning_rat": 1})
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(PermanentDataError, match="is empty"):
        train_program_model(tmp_path / "empty.jsonl", files[1], tmp_path / "m", steps=1)
    (tmp_path / "other.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(PermanentDataError, match="lines"):
        train_program_model(tmp_path / "other.jsonl", files[1], tmp_path / "m", steps=1)


@pytest.mark.parametrize(
    ("labels", "settled"),
    [("K?K", "KKK"), ("R?R", "RRR"), ("R??K", "RKKK"), ("?R?", "RRR"), ("??K", "KKK"), ("???", "KKK"), ("", "")],
)
def test_unsure_lines_go_only_where_both_neighbours_go(labels, settled):
    codes = {"K": KEEP, "R": REMOVE, "?": UNSURE}
    found = settled_labels(np.array([codes[c] for c in labels], dtype=np.int8))
    assert found.tolist() == [codes[c] for c in settled]


@given(st.lists(st.sampled_from([KEEP, REMOVE, UNSURE]), max_size=30))
def test_known_labels_stay_and_the_example_says_what_is_unsure(labels):
    array = np.array(labels, dtype=np.int8)
    settled = settled_labels(array)
    known = array != UNSURE
    assert (settled[known] == array[known]).all()
    assert UNSURE not in settled.tolist()


def test_an_examples_program_and_origin(files):
    pages = read_labelled_pages(files[0])
    blank = LabelledPage("x", "", "human", (), np.zeros(0, dtype=np.int8))
    (*examples,) = page_examples([*pages, blank], files[0])
    assert len(examples) == 8
    assert examples[0].program == "remove_lines(start=0, end=0)\nremove_lines(start=5, end=5)"
    assert examples[0].unsure == (2,)
    assert examples[0].provenance.source.startswith("train.jsonl sha256:")
    assert examples[0].provenance.details == {"tier": "human"}
