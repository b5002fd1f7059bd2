"""Fine-tuning from examples to a model folder that the ordinary refiners load, with a real process killed midway."""

import gzip
import json
import os
import random
import signal
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")

from corpusmill.errors import ConfigError, ModelError, PermanentDataError  # noqa: E402
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig  # noqa: E402
from corpusmill.prox.finetuning_settings import FinetuningSettings  # noqa: E402
from corpusmill.prox.program_execution import ChunkProgram, ExecutionSettings, execute  # noqa: E402
from corpusmill.prox.program_model_folder import (  # noqa: E402
    FORMAT,
    RECORD,
    as_trained,
    chunk_config,
    doc_config,
    read_record,
)
from corpusmill.prox.program_parser import parse_program  # noqa: E402
from corpusmill.prox.refiner import folder_digest, load_chunk_refiner, load_doc_refiner  # noqa: E402
from corpusmill.prox.refiner_evaluation import evaluate  # noqa: E402
from corpusmill.prox.refiner_finetuning import finetune_refiner  # noqa: E402
from corpusmill.prox.training_examples import (  # noqa: E402
    ChunkExample,
    DocumentExample,
    Provenance,
    read_examples,
    write_examples,
)

WORDS = ["river", "water", "survey", "page", "snow", "melt", "spring", "data", "table"]
PEOPLE = Provenance(route="gold", teacher="people")
MENU = "home menu login"
SETTINGS = FinetuningSettings(
    batch_examples=16, context=256, max_target_tokens=48, n_vocab=420, learning_rate=5e-3, evaluations=2,
    dev_examples=16, device="cpu",
)  # fmt: skip


def chunk_example(number):
    """A page whose first line is a menu, or not; the program removes menus."""
    rng = random.Random(number)
    lines = [" ".join(rng.choices(WORDS, k=rng.randint(2, 5))) for _ in range(rng.randint(3, 6))]
    if menu := rng.random() < 0.5:
        lines[0] = MENU
    program = "remove_lines(start=0, end=0)" if menu else "keep_chunk()"
    return ChunkExample(doc_id=str(number), lines=tuple(lines), program=program, provenance=PEOPLE)


def document_example(number):
    rng = random.Random(number)
    text = " ".join(rng.choices(WORDS, k=rng.randint(5, 30)))
    drop = rng.random() < 0.5
    return DocumentExample(
        doc_id=str(number), text=f"buy cookie {text}" if drop else text, decision="drop" if drop else "keep",
        provenance=PEOPLE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Train and dev files that hold examples of both kinds."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("examples")
    for name, numbers in (("train.jsonl.gz", range(300)), ("dev.jsonl", range(1000, 1030))):
        write_examples(folder / name, [make(i) for i in numbers for make in (chunk_example, document_example)])
    return folder / "train.jsonl.gz", folder / "dev.jsonl"


@pytest.mark.slow
def test_a_line_edit_is_learnt_and_written_as_valid_programs(files, tmp_path):
    lines = []
    quality = finetune_refiner(
        *files, tmp_path / "m", task="chunk", base="new:test", steps=60, progress=lines.append, settings=SETTINGS
    )
    assert quality["validation"]["keep_f1"] == quality["validation"]["remove_f1"] == 1.0
    assert [line.split(":")[0] for line in lines] == ["step 30", "step 60"]
    record = read_record(tmp_path / "m")
    assert record["task"] == "chunk"
    assert record["quality"]["validation"] == quality["validation"]
    assert len(json.loads((tmp_path / "m" / "losses.json").read_text())) == 60
    assert str(tmp_path) not in (tmp_path / "m" / RECORD).read_text() + (tmp_path / "m" / "README.md").read_text()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]

    config = chunk_config(tmp_path / "m", device="cpu")
    assert (config.backend, config.prompt_ids, config.max_new_tokens) == ("transformers", "sft", 48)
    refiner = load_chunk_refiner(config)
    unseen = [chunk_example(number) for number in range(2000, 2010)]
    for example in unseen:
        text = "\n".join(example.lines)
        (chunk,) = refiner.split(text)
        (output,) = refiner.write_programs([chunk])
        assert parse_program(output.output, "strict") == parse_program(example.program, "strict")
        result = execute(text, [ChunkProgram(0, chunk.last_line, output.output)], ExecutionSettings("strict", 0))
        assert MENU not in result.text
    named = load_chunk_refiner(ChunkRefinementConfig(model=str(tmp_path / "m"), device="cpu"))  # as a recipe does
    assert named.write_programs([chunk]) == [output]
    pages = [{"lines": list(e.lines), "remove": [e.lines.index(MENU)] if MENU in e.lines else []} for e in unseen]
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps({**page, "unsure": []}) + "\n" for page in pages))
    measured = evaluate(tmp_path / "m", tmp_path / "pages.jsonl")
    assert (measured["keep_f1"], measured["validity_free"]) == (1.0, 1.0)


@pytest.mark.slow
def test_a_decision_is_learnt_and_taken_by_one_prefill(files, tmp_path):
    quality = finetune_refiner(*files, tmp_path / "m", task="document", base="new:test", steps=50, settings=SETTINGS)
    assert quality["validation"]["f1"] == 1.0
    refiner = load_doc_refiner(doc_config(tmp_path / "m", device="cpu"))
    examples = [document_example(number) for number in range(2000, 2020)]
    decisions = refiner.decide([example.text for example in examples])
    assert [d.decision for d in decisions] == [example.decision for example in examples]
    assert all(d.margin is not None and (d.margin > 0.5) == (d.decision == "drop") for d in decisions)
    with pytest.raises(ConfigError, match=r"model 'm' was trained for the document stage, not for the chunk stage"):
        chunk_config(tmp_path / "m")


CHILD = """
import json, sys
from pathlib import Path
import torch
from corpusmill.prox.finetuning_settings import FinetuningSettings
from corpusmill.prox.refiner_finetuning import finetune_refiner
torch.set_num_threads(1)
train, dev, out, base, settings = sys.argv[1:]
settings = FinetuningSettings.model_validate(json.loads(settings))
finetune_refiner(Path(train), Path(dev), Path(out), task="chunk", base=base, steps=32, settings=settings,
    progress=lambda line: print(line, flush=True))
"""


def base_with_dropout(files, tmp_path):
    """A model folder whose training draws random numbers at every step."""
    from corpusmill.modeling.load import load_causal_lm

    settings = SETTINGS.model_copy(update={"evaluations": 1})
    finetune_refiner(*files, tmp_path / "base", task="chunk", base="new:test", steps=1, settings=settings)
    model = load_causal_lm(str(tmp_path / "base"), device="cpu", attention_dropout=0.2)
    assert model.config.attention_dropout == 0.2
    model.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.mark.slow
def test_a_process_killed_midway_resumes_with_the_curve_and_weights_it_would_have_had(files, tmp_path):
    base = base_with_dropout(files, tmp_path)
    settings = SETTINGS.model_copy(
        update={"evaluations": 4, "checkpoint_every": 3, "batch_examples": 4, "dev_examples": 2}
    )
    whole = tmp_path / "whole"
    finetune_refiner(*files, whole, task="chunk", base=str(base), steps=32, settings=settings)

    out = tmp_path / "killed"
    arguments = [*map(str, files), str(out), str(base), settings.model_dump_json()]
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", CHILD, *arguments],
        stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert child.stdout is not None
    for line in child.stdout:
        if line.startswith("step 8:"):
            child.send_signal(signal.SIGKILL)
            break
    assert child.wait() == -signal.SIGKILL
    assert not out.exists()

    lines = []
    finetune_refiner(*files, out, task="chunk", base=str(base), steps=32, settings=settings, progress=lines.append)
    resumed_at = int(lines[0].removeprefix("step ").split(":")[0])
    assert lines[0].endswith("going on from a checkpoint")
    assert 8 <= resumed_at < 32
    assert (out / "losses.json").read_text() == (whole / "losses.json").read_text()
    assert folder_digest(out) == folder_digest(whole)


def tiny_run(files, out, **changes):
    settings = SETTINGS.model_copy(update={"evaluations": 1, "batch_examples": 2, "dev_examples": 2})
    options = {"task": "document", "base": "new:test", "steps": 1, "settings": settings, **changes}
    return finetune_refiner(*files, out, **options)


def test_a_model_replaces_one_of_ours_and_nothing_else(files, tmp_path):
    tiny_run(files, tmp_path / "m")
    first = folder_digest(tmp_path / "m")
    tiny_run(files, tmp_path / "m", seed=1)
    assert folder_digest(tmp_path / "m") != first
    tiny_run(files, tmp_path / "again")
    assert folder_digest(tmp_path / "again") == first
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"out_dir='other' exists and holds no corpusmill.json"):
        tiny_run(files, tmp_path / "other")
    with pytest.raises(ConfigError, match="is the base's own folder"):
        tiny_run(files, tmp_path / "m", base=str(tmp_path / "m"))


def test_a_failure_leaves_no_model_folder(files, tmp_path):
    def fail(_folder, _device, _dtype):
        raise ModelError("measuring failed")

    with pytest.raises(ModelError, match="measuring failed"):
        tiny_run(files, tmp_path / "m", measure=fail)
    assert not (tmp_path / "m").exists()
    assert not list(tmp_path.glob(".m.partial-*"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 1, "minutes": 1.0}, "expected at most one of minutes, steps and epochs"),
        ({"steps": 0}, "above 0"),
        ({"base": "new:huge"}, "base='new:huge' is unknown; expected new: and one of"),
        (
            {"settings": SETTINGS.model_copy(update={"context": 128, "max_target_tokens": 120})},
            "leave no room for text",
        ),
    ],
    ids=["two lengths", "no step", "preset", "context"],
)
def test_wrong_arguments_are_refused_before_training(files, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        tiny_run(files, tmp_path / "m", **changes)
    assert list(tmp_path.iterdir()) == []


def test_files_without_examples_of_the_task_are_refused(files, tmp_path):
    only = tmp_path / "documents.jsonl"
    write_examples(only, [e for e in read_examples(files[1]) if e.kind == "document"])
    with pytest.raises(PermanentDataError, match=r"documents.jsonl holds no example of kind 'chunk'"):
        finetune_refiner(only, only, tmp_path / "m", task="chunk", base="new:test", steps=1, settings=SETTINGS)
    with gzip.open(tmp_path / "broken.jsonl.gz", "wt") as file:
        file.write('{"kind": "document"}\n')
    with pytest.raises(PermanentDataError, match=r"broken.jsonl.gz line 1 is no training example"):
        tiny_run((tmp_path / "broken.jsonl.gz", files[1]), tmp_path / "m")
    with pytest.raises(PermanentDataError, match="cannot be read"):
        tiny_run((tmp_path / "absent.jsonl", files[1]), tmp_path / "m")


def test_a_model_runs_as_it_was_trained_unless_the_settings_say_otherwise(tmp_path):
    record = {"format": FORMAT, "task": "chunk", "inference": {"prompt_ids": "sft", "window_tokens": 700}}
    (tmp_path / RECORD).write_text(json.dumps(record))
    given = ChunkRefinementConfig(model="a name", window_tokens=90, min_words=3)
    assert as_trained(given, tmp_path) == given.model_copy(update={"prompt_ids": "sft"})
    assert as_trained(given.model_copy(update={"window_tokens": 1500}), tmp_path).window_tokens == 700
    with pytest.raises(ConfigError, match="trained for the chunk stage, not for the document stage"):
        load_doc_refiner(DocRefinementConfig(model=str(tmp_path)))
    (tmp_path / RECORD).write_text(json.dumps({**record, "inference": {"windows": 3}}))
    with pytest.raises(ConfigError, match="windows=3"):
        as_trained(given, tmp_path)


def test_a_damaged_or_foreign_record_is_refused_and_none_means_a_public_model(tmp_path):
    assert read_record(tmp_path) is None
    assert chunk_config(tmp_path).prompt_ids == "compat"
    (tmp_path / RECORD).write_text("{")
    with pytest.raises(ModelError, match=r"corpusmill.json of model .* cannot be read"):
        read_record(tmp_path)
    (tmp_path / RECORD).write_text(json.dumps({"format": "other/2", "task": "chunk", "inference": {"a": 1}}))
    with pytest.raises(ModelError, match=r"has format='other/2'"):
        doc_config(tmp_path)
