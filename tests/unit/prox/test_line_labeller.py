"""The labeller as a refiner: its programs say exactly its labels, and a window's labels depend on nothing else."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.errors import ConfigError, ModelError
from corpusmill.prox.document_features import DOCUMENT_FEATURES
from corpusmill.prox.document_head import DocumentHead
from corpusmill.prox.labeller_folder import load_labeller, published_folder, save_labeller
from corpusmill.prox.line_features import line_features
from corpusmill.prox.line_labeller import (
    LabellerChunkRefiner,
    LabellerDocRefiner,
    even_windows,
    line_probabilities,
    program_of,
    removed_lines,
)
from corpusmill.prox.line_network import LineNetwork, NetworkShape
from corpusmill.prox.program_execution import ChunkProgram, ExecutionSettings, execute
from corpusmill.prox.refiner import Chunk, ChunkRefiner, DocRefiner

SHAPE = NetworkShape(n_buckets=256, word_width=8, width=16, n_layers=1, n_heads=2, max_lines=8, dropout=0.1)
PAGE = "Home\nAbout us\n\nA sentence that says something, at last.\n\nAnother one follows it.\nPrivacy | Terms\n"
OPEN_GATES = ExecutionSettings("strict", min_words=0, max_removed=1.0)


def make_head() -> DocumentHead:
    n = len(DOCUMENT_FEATURES)
    weights = np.linspace(-1, 1, n)
    return DocumentHead(np.zeros(n), np.ones(n), weights, 0.1, 0.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        network = LineNetwork(SHAPE)
        for parameter in network.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.3)
    published_folder(folder, lambda path: save_labeller(path, [network], make_head(), {"threshold": 0.5}))
    return folder


@settings(max_examples=200, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 2000))
def test_an_executed_program_removes_exactly_the_marked_lines(marks, first_line):
    before = [f"before {i}" for i in range(first_line)]
    lines = [f"line {i}" for i in range(len(marks))]
    program = ChunkProgram(first_line, first_line + len(marks) - 1, program_of(marks, first_line))
    result = execute("\n".join([*before, *lines, "after"]), [program], OPEN_GATES)
    kept = [line for line, gone in zip(lines, marks, strict=True) if not gone]
    assert result.text == "\n".join([*before, *kept, "after"])
    assert result.n_errors == 0


def test_adjacent_ranges_are_one_call_and_nothing_to_remove_is_keep_chunk():
    assert program_of([True, True, False, True], 10) == "remove_lines(start=10, end=11)\nremove_lines(start=13, end=13)"
    assert program_of([False, False], 0) == "keep_chunk()"
    assert program_of([], 0) == "keep_chunk()"


def test_line_numbers_beyond_six_digits_are_never_written():
    assert program_of([True] * 4, 999_998) == "remove_lines(start=999998, end=999999)"
    assert program_of([True], 1_000_000) == "keep_chunk()"


def test_a_blank_line_goes_with_the_text_before_it():
    lines = ["", "menu", "", "", "text", "", "footer", ""]
    removed = removed_lines(lines, [True, False, True], [1, 4, 6])
    assert removed.tolist() == [True, True, True, True, False, False, True, True]
    assert not removed_lines(["", " "], [], []).any()


def test_windows_are_even_and_cover_all_lines():
    assert even_windows(0, 8) == []
    assert even_windows(8, 8) == [(0, 8)]
    assert even_windows(9, 8) == [(0, 4), (4, 9)]


def test_the_refiners_keep_their_protocols(model):
    assert isinstance(LabellerChunkRefiner(model), ChunkRefiner)
    assert isinstance(LabellerDocRefiner(model), DocRefiner)


@pytest.mark.parametrize(
    "text", ["", "\n", "a", PAGE, "\n\nx\n\n", "a\n" * 100, "\x00\n\u05e9\n\u4e2d\r\n" * 9], ids=repr
)
def test_windows_joined_are_the_text_and_their_programs_run(model, text):
    refiner = LabellerChunkRefiner(model)
    chunks = refiner.split(text)
    assert "\n".join(line for chunk in chunks for line in chunk.lines) == text
    assert [chunk.first_line for chunk in chunks[1:]] == [chunk.last_line + 1 for chunk in chunks[:-1]]
    outputs = refiner.write_programs(chunks)
    programs = [ChunkProgram(c.first_line, c.last_line, o.output) for c, o in zip(chunks, outputs, strict=True)]
    assert execute(text, programs, OPEN_GATES).n_errors == 0


def test_programs_say_the_labels_of_the_network(model):
    lines = tuple(PAGE.split("\n"))
    filled = [i for i, line in enumerate(lines) if line]
    p = line_probabilities(load_labeller(model).networks[0], line_features([lines[i] for i in filled]))
    threshold = float(np.median(p))
    program = program_of(removed_lines(lines, (p >= threshold).tolist(), filled), 0)
    assert LabellerChunkRefiner(model, threshold).write_programs([Chunk(0, lines)])[0].output == program
    assert program.startswith("remove_lines")


def test_thresholds_zero_and_one_remove_all_and_nothing(model):
    chunk = Chunk(5, ("a", "", "b"))
    assert LabellerChunkRefiner(model, 0.0).write_programs([chunk])[0].output == "remove_lines(start=5, end=7)"
    assert LabellerChunkRefiner(model, 1.0).write_programs([chunk])[0].output == "keep_chunk()"


def test_a_window_gets_the_same_program_alone_and_in_any_batch(model):
    lines = [f"line {i} of it" + "." * (i % 2) for i in range(8)]
    middle = float(np.median(line_probabilities(load_labeller(model).networks[0], line_features(lines))))
    refiner = LabellerChunkRefiner(model, middle)
    chunks = [Chunk(i, tuple(f"line {i * j} of it" + "." * (j % 2) for j in range(1, i + 2))) for i in range(8)]
    together = refiner.write_programs(chunks)
    assert together == [refiner.write_programs([chunk])[0] for chunk in chunks]
    assert refiner.write_programs(chunks[::-1]) == together[::-1]
    assert len({output.output for output in together}) > 1


def test_writing_programs_leaves_the_number_of_threads_alone(model):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        LabellerChunkRefiner(model).write_programs([Chunk(0, ("a", "b"))])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_padding_does_not_change_a_window_beyond_rounding(model):
    from corpusmill.prox.line_network import collate

    network = load_labeller(model).networks[0]
    short, long = line_features(["a b.", "Menu"]), line_features(["x"] * 7)
    with torch.inference_mode():
        alone = network(collate([short], SHAPE.n_buckets))[0]
        padded = network(collate([short, long], SHAPE.n_buckets))[0, :2]
    torch.testing.assert_close(alone, padded, rtol=1e-5, atol=1e-5)


def test_document_decisions_are_the_same_alone_and_together(model):
    texts = ["", PAGE, "One line only", "\x00", PAGE * 20]
    refiner = LabellerDocRefiner(model)
    decisions = refiner.decide(texts)
    assert decisions == [refiner.decide([text])[0] for text in texts]
    for decision in decisions:
        assert 0.0 <= (decision.margin or 0.0) <= 1.0
        assert decision.decision == ("drop" if (decision.margin or 0.0) >= 0.5 else "keep")
        assert decision.output == f"{decision.decision}_doc()"


def test_a_threshold_of_its_own_changes_the_fingerprint_and_not_the_model_id(model):
    a, b = LabellerDocRefiner(model), LabellerDocRefiner(model, 0.9)
    assert a.model_id == b.model_id
    assert a.model_id.startswith("tiny@")
    assert a.fingerprint != b.fingerprint
    assert a.fingerprint == LabellerDocRefiner(model, 0.5).fingerprint


def test_a_threshold_that_is_no_probability_is_refused(model):
    with pytest.raises(ConfigError, match=r"threshold=1\.5"):
        LabellerChunkRefiner(model, 1.5)


def damage_nothing_there(folder):
    shutil.rmtree(folder)


def damage_weights(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def damage_format(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format": "other"}))


def damage_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "shape": {**config["shape"], "width": 32}}))


def damage_json(folder):
    (folder / "config.json").write_text("{")


@pytest.mark.parametrize(
    "damage", [damage_nothing_there, damage_weights, damage_format, damage_shape, damage_json], ids=lambda f: f.__name__
)
def test_a_damaged_model_folder_is_refused_with_a_reason(model, tmp_path, damage):
    folder = tmp_path / "copy"
    shutil.copytree(model, folder)
    damage(folder)
    with pytest.raises(ModelError, match="'copy'"):
        load_labeller(folder)


def test_a_model_without_document_head_refuses_document_decisions(tmp_path):
    published_folder(tmp_path / "m", lambda path: save_labeller(path, [LineNetwork(SHAPE)], None, {"threshold": 0.5}))
    LabellerChunkRefiner(tmp_path / "m")
    with pytest.raises(ModelError, match="no document head"):
        LabellerDocRefiner(tmp_path / "m")


def test_an_ensemble_is_stored_whole_and_averages_its_members_logits(tmp_path, model):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        members = [LineNetwork(SHAPE).eval() for _ in range(2)]
    published_folder(tmp_path / "m", lambda path: save_labeller(path, members, make_head(), {"threshold": 0.5}))
    labeller, features = load_labeller(tmp_path / "m"), line_features(["Home", "A sentence, at last."])
    assert len(labeller.networks) == 2
    assert labeller.document_head is not None
    one, two = (line_probabilities(network, features) for network in labeller.networks)
    mean_logits = (np.log(one / (1 - one)) + np.log(two / (1 - two))) / 2
    np.testing.assert_allclose(line_probabilities(labeller.networks, features), 1 / (1 + np.exp(-mean_logits)))
    assert abs(one - two).max() > 1e-3
    (output,) = LabellerChunkRefiner(tmp_path / "m").write_programs([Chunk(0, ("Home", "A sentence, at last."))])
    assert output.output


def test_an_ensemble_that_lacks_a_member_is_refused(tmp_path, model):
    shutil.copytree(model, tmp_path / "m")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "members": 2}))
    with pytest.raises(ModelError, match="'m' cannot be loaded"):
        load_labeller(tmp_path / "m")
