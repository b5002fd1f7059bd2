"""Training of the program writer: what is taught, that it learns and repeats, that a folder is whole or absent."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.errors import ConfigError, ModelError
from corpusmill.prox.checkpointed_training import Budget
from corpusmill.prox.labelled_pages import KEEP, REMOVE, UNSURE, LabelledPage
from corpusmill.prox.line_network import NetworkShape, one_thread
from corpusmill.prox.line_training import examples_of
from corpusmill.prox.program_tokens import Group, Word, is_program, program_tokens
from corpusmill.prox.program_writer import WriterChunkRefiner
from corpusmill.prox.refiner import Chunk
from corpusmill.prox.writer_folder import load_writer
from corpusmill.prox.writer_network import WriterShape
from corpusmill.prox.writer_targets import drawn_history, program_targets
from corpusmill.prox.writer_training import train_program_writer, train_writer_network

LINES = NetworkShape(n_buckets=512, word_width=8, width=16, n_layers=1, n_heads=2, max_lines=64, dropout=0.0)
SHAPE = WriterShape(lines=LINES, n_layers=1, n_heads=2, dropout=0.0)
STEPS = 180
MENU = ["Home", "About us", "Contact", "Log in", "Privacy | Terms", "Share this page", "Next >", "Tags: news"]


def make_row(seed, domain):
    rng = np.random.default_rng(seed)
    words = ["the", "river", "house", "was", "old", "and", "people", "went", "there", "often"]
    text = [" ".join(rng.choice(words, 14)).capitalize() + "." for _ in range(int(rng.integers(4, 9)))]
    head, tail = list(rng.choice(MENU, 5)), list(rng.choice(MENU, 4))
    lines = [*head, *text, *tail]
    remove = [i for i in range(len(lines)) if i < len(head) or i >= len(head) + len(text)]
    unsure = [len(head)] if seed % 5 == 0 else []
    return {"doc_id": str(seed), "domain": domain, "tier": "human", "lines": lines, "remove": remove, "unsure": unsure}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    for name, seeds in (("train", range(40)), ("dev", range(100, 110))):
        rows = [json.dumps(make_row(seed, f"{name}{seed}.example")) for seed in seeds]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    return folder / "train.jsonl", folder / "dev.jsonl"


def train(files, out, **options):
    with one_thread():
        return train_program_writer(*files, out, shape=SHAPE, **options)


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "m"
    lines = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("corpusmill.prox.writer_training.DECODER_SHARE", 0.5)  # few pages are read soon
        quality = train(files, out, steps=STEPS, seed=1, progress=lines.append)
    return out, quality, lines


def one_target(program, labels):
    return program_targets([program], [np.array(labels, dtype=np.int8)])


def scans(targets, ends_range, t):
    """Returns {line: whether the scan should stop there} for one window and token."""
    judged = torch.nonzero(targets.scanned[ends_range, 0, t]).flatten().tolist()
    return {line: bool(targets.stopping[ends_range, 0, t, line]) for line in judged}


def test_the_right_program_is_taught_to_itself():
    labels = [REMOVE, REMOVE, KEEP, REMOVE, KEEP, KEEP]
    program = program_tokens([label == REMOVE for label in labels])
    targets = one_target(program, labels)
    assert targets.tokens.tolist() == [[Word.BEGIN, *program[:-1]]]
    row, decide, middle, close = Group.ROW, Group.DECIDE, Group.MIDDLE, Group.CLOSE
    assert targets.groups.tolist() == [[decide, *[row, middle, row, close, decide] * 2]]
    assert [t for t, ends in enumerate(targets.ends_range[0].tolist()) if ends] == [4, 9]
    assert scans(targets, 0, 0) == scans(targets, 0, 1) == {0: True}
    assert scans(targets, 1, 3) == {1: False, 2: True}
    assert scans(targets, 0, 5) == {3: True}
    assert scans(targets, 1, 8) == {4: True}
    assert scans(targets, 0, 10) == {5: False}
    assert targets.stops[0, 0] == 0
    assert targets.stops[0, 5] == targets.stops[0, 10] == 1


def test_after_a_mistake_the_next_right_range_is_taught():
    labels = [REMOVE, KEEP, KEEP, REMOVE, REMOVE, KEEP]
    targets = one_target(program_tokens([False, True, True, False, False, False]), labels)
    assert scans(targets, 0, 0) == {0: True}  # it should have begun at line 0
    assert scans(targets, 1, 3) == {2: True}  # begun at 1: over at once
    assert scans(targets, 0, 5) == {4: True}  # ended at 2: line 3 is passed, line 4 goes


def test_unsure_lines_teach_nothing_and_an_empty_program_ends():
    labels = [KEEP, UNSURE, REMOVE, UNSURE]
    targets = one_target(program_tokens([False] * 4), labels)
    assert scans(targets, 0, 0) == {0: False, 2: True}
    assert scans(targets, 0, 1) == {0: False, 2: False}  # nothing follows keep_chunk()
    assert targets.stops.tolist() == [[0, 1]]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([KEEP, REMOVE, UNSURE]), min_size=1, max_size=30), st.integers(0, 1000))
def test_any_history_is_a_program_with_at_most_one_stop_a_scan(labels, seed):
    known = np.array(labels, dtype=np.int8)
    rng = np.random.default_rng(seed)
    program = drawn_history(known, rng.normal(size=len(labels)).astype(np.float32), rng)
    assert is_program(program, len(labels))
    targets = program_targets([program, [Word.KEEP, Word.END]], [known, known])
    assert targets.stopping.sum(dim=3).max() <= 1
    assert (targets.scanned[..., known == UNSURE]).sum() == 0
    assert (targets.stopping * ~targets.scanned).sum() == 0
    assert targets.groups.shape[1] == len(program) or len(program) < 2


def test_training_lowers_the_loss_and_learns_menus(trained):
    _, quality, lines = trained
    decoder = [float(line.split("loss ")[1].split()[0]) for line in lines if line.startswith("decoder")]
    assert len(decoder) == 4
    assert decoder[-1] < decoder[0]
    scores = quality["full_text"]
    assert scores["keep_f1"] > 0.9
    assert scores["keep_f1"] > scores["remove_nothing"]["keep_f1"]
    assert scores["validity"] == 1.0
    assert 0.5 < scores["validity_free"] <= 1.0


def test_a_trained_writer_writes_the_program_of_a_page(trained):
    row = make_row(7, "x")
    output = WriterChunkRefiner(trained[0]).write_programs([Chunk(0, tuple(row["lines"]))])[0]
    last = len(row["lines"]) - 1
    assert output.output == f"remove_lines(start=0, end=4)\nremove_lines(start={last - 3}, end={last})"


def test_the_config_says_how_the_model_was_made_and_how_good_it_is(trained):
    out, quality, _ = trained
    config = json.loads((out / "config.json").read_text())
    assert config["format"] == "corpusmill-program-writer/1"
    assert config["quality"] == quality
    assert config["training"]["steps"] == [90, 90]
    assert config["training"]["command"].startswith("corpusmill build-refiner --kind program-writer --train train")
    assert set(config["training"]["data_sha256"]) == {"train.jsonl", "dev.jsonl"}
    assert config["training"]["dev_domains_in_training"] == 0
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert load_writer(out).threshold == config["threshold"]


def test_the_model_card_shows_the_measured_figures_and_the_command(trained):
    out, quality, _ = trained
    card = (out / "README.md").read_text()
    scores = quality["full_text"]
    assert f"| {scores['keep_f1']:.3f} | {scores['char_f1']:.3f} | {scores['remove_f1']:.3f} | 1.000 |" in card
    assert json.loads((out / "config.json").read_text())["training"]["command"] in card


def test_equal_seeds_and_steps_give_equal_bytes_and_other_seeds_do_not(files, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        train(files, tmp_path / name, steps=4, seed=seed)
    a, b, c = (tmp_path / name for name in "abc")
    for name in ("model.safetensors", "config.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    assert (a / "model.safetensors").read_bytes() != (c / "model.safetensors").read_bytes()


def test_training_leaves_the_callers_random_state_alone(files, tmp_path):
    torch.manual_seed(11)
    expected = torch.get_rng_state()
    train(files, tmp_path / "m", steps=2, seed=0)
    assert torch.equal(torch.get_rng_state(), expected)


def test_training_by_minutes_ends(files, tmp_path):
    train(files, tmp_path / "m", minutes=0.01)
    assert json.loads((tmp_path / "m" / "config.json").read_text())["training"]["steps"][1] >= 1


def test_exactly_one_budget_is_needed(files, tmp_path):
    with pytest.raises(ConfigError, match="exactly one"):
        train(files, tmp_path / "m", minutes=1.0, steps=1)
    assert not (tmp_path / "m").exists()


def test_pages_of_unsure_lines_only_do_not_break_training():
    pages = [LabelledPage("x", "d", "human", ("a", "b"), np.array([-1, -1], dtype=np.int8))]
    examples = examples_of(pages)
    network = train_writer_network([(1.0, examples)], [examples], SHAPE, Budget(3, None), 0, lambda _: None).network
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


def test_a_loss_that_is_not_finite_stops_training(files, tmp_path, monkeypatch):
    monkeypatch.setattr("corpusmill.prox.decoder_training.LEARNING_RATE", float("inf"))
    with pytest.raises(ModelError, match="training loss is nan"):
        train(files, tmp_path / "m", steps=12)
    assert not (tmp_path / "m").exists()


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from corpusmill.prox.line_network import NetworkShape
    from corpusmill.prox.writer_network import WriterShape
    from corpusmill.prox.writer_training import train_program_writer

    lines = NetworkShape(n_buckets=512, word_width=8, width=16, n_layers=1, n_heads=2, max_lines=64, dropout=0.1)
    shape = WriterShape(lines=lines, n_layers=1, n_heads=2, dropout=0.1)
    train, dev, out = map(Path, sys.argv[1:4])

    def progress(line):
        print(line, flush=True)
        if len(sys.argv) > 4 and line.startswith(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)

    train_program_writer(train, dev, out, steps=20, seed=3, shape=shape, progress=progress)
    """
)


@pytest.mark.slow
def test_a_killed_training_goes_on_and_gives_the_model_of_an_undisturbed_one(files, tmp_path):
    def run(out, *end):
        command = [sys.executable, "-c", KILLED, *map(str, files), str(tmp_path / out), *end]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
        return done.returncode, done.stdout.splitlines()

    assert run("m", "decoder step 3:")[0] == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".m.training"], "no half model"
    code, lines = run("m")
    assert code == 0
    assert lines[:2] == ["network goes on from step 16", "decoder goes on from step 2"]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    assert run("undisturbed")[0] == 0
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    load_writer(tmp_path / "m")
