"""The program writer as a refiner: whole programs from any weights on any page, alone as in any batch."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.errors import ModelError
from corpusmill.prox.config import ChunkRefinementConfig
from corpusmill.prox.labeller_folder import published_folder
from corpusmill.prox.line_features import line_features
from corpusmill.prox.line_labeller import line_probabilities
from corpusmill.prox.line_network import NetworkShape, collate
from corpusmill.prox.program_execution import ChunkProgram, ExecutionSettings, execute
from corpusmill.prox.program_parser import parse_program
from corpusmill.prox.program_tokens import RANGE_TOKENS, Word, is_program, program_tokens
from corpusmill.prox.program_writer import WriterChunkRefiner
from corpusmill.prox.refiner import Chunk, ChunkRefiner, load_chunk_refiner
from corpusmill.prox.writer_decoding import ProgramDecoder
from corpusmill.prox.writer_folder import load_writer, save_writer
from corpusmill.prox.writer_network import WriterNetwork, WriterShape

LINES = NetworkShape(n_buckets=256, word_width=8, width=16, n_layers=1, n_heads=2, max_lines=8, dropout=0.1)
SHAPE = WriterShape(lines=LINES, n_encoders=2, n_layers=1, n_heads=2)
PAGE = "Home\nAbout us\n\nA sentence that says something, at last.\n\nAnother one follows it.\nPrivacy | Terms\n"
OPEN_GATES = ExecutionSettings("strict", min_words=0, max_removed=1.0)


def random_network(seed, noise=0.4):
    """Returns a network of random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = WriterNetwork(SHAPE)
        for parameter in network.parameters():
            parameter.data.add_(torch.randn_like(parameter) * noise)
    return network.eval()


def read(network, texts):
    with torch.inference_mode():
        return network.read(collate([line_features(texts)], LINES.n_buckets))


def write(network, texts, constrained=True):
    with torch.inference_mode():
        return ProgramDecoder(network, constrained).write(read(network, texts))


def varied(n, seed):
    rng = np.random.default_rng(seed)
    words = ["Home", "the", "river", "2024", "|", "went", "Login", "there.", "\u4e2d\u6587", "a:"]
    return [" ".join(rng.choice(words, int(rng.integers(1, 12)))) for _ in range(n)]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    published_folder(folder, lambda path: save_writer(path, random_network(3), {"threshold": 0.5, "weight": 0.8}))
    return folder


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.sampled_from([0.0, 0.3, 1.0, 4.0]))
def test_under_the_grammar_any_weights_write_whole_programs(seed, n_lines, noise):
    tokens, truncated = write(random_network(seed, noise), varied(n_lines, seed))
    assert not truncated
    assert is_program(tokens, n_lines)


def test_random_weights_write_more_than_one_kind_of_program():
    programs = {tuple(write(random_network(seed), varied(8, seed))[0]) for seed in range(30)}
    assert (Word.KEEP, Word.END) in programs
    assert max(map(len, programs)) > 2 * RANGE_TOKENS


def test_free_decoding_ends_and_is_the_constrained_program_where_it_is_whole():
    whole = 0
    for seed in range(60):
        network = random_network(seed)
        # about half of these networks are told what the grammar wants after each word
        if seed % 2:
            network = told_the_grammar(network)
        texts = varied(8, seed)
        free, truncated = write(network, texts, constrained=False)
        assert len(free) <= RANGE_TOKENS * (len(texts) // 2 + 1) + 2
        assert truncated == (free[-1] != Word.END)
        if is_program(free, len(texts)):
            whole += 1
            assert free == write(network, texts)[0]
    assert whole >= 15


def told_the_grammar(network):
    """Returns the network with layers that pass embeddings through, so that kinds follow from the last word alone."""
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in network.layers:
            for linear in (layer.out, layer.down):
                linear.weight.zero_()
                linear.bias.zero_()
        network.words.weight.copy_(4 * torch.eye(16)[:6])
        network.page.weight.zero_()
        network.page.bias.zero_()
        for ends_range, rows in enumerate(network.rows):
            rows.weight.zero_()
            rows.bias.copy_(4 * torch.eye(16)[6 + ends_range])
        network.norm.weight.fill_(1)
        network.norm.bias.zero_()
        kinds = torch.zeros(4, 16)  # DECIDE, MIDDLE, CLOSE, ROW by the last token
        for kind, last in ((0, 0), (3, 1), (3, 2), (0, 3), (0, 4), (1, 6), (2, 7)):
            kinds[kind, last] = 1
        network.groups.weight.copy_(kinds)
        network.groups.bias.zero_()
        stops = torch.zeros(2, 16)
        stops[0, 0] = stops[1, 3] = stops[1, 4] = 1
        network.stop.weight.copy_(stops)
        network.stop.bias.zero_()
    return network


@pytest.mark.parametrize("trained", [False, True], ids=["untrained", "of weight 0"])
def test_a_decoder_that_corrects_nothing_writes_what_the_encoders_think(trained):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        network = WriterNetwork(SHAPE).eval()
        network.encoders[0].head.weight.data.mul_(20)
    if trained:
        network.queries[0].bias.data.fill_(3)
        network.trust[1].bias.data.fill_(3)
    for seed in range(20):
        features = line_features(varied(8, seed))
        with torch.inference_mode():
            lines = network.read(collate([features], LINES.n_buckets))
            tokens, _ = ProgramDecoder(network, weight=0.0 if trained else 1.0).write(lines)
        assert tokens == program_tokens((line_probabilities(list(network.encoders), features) >= 0.5).tolist())


def test_scans_stop_nowhere_at_threshold_one_and_everywhere_at_zero():
    network = random_network(1)
    lines = read(network, varied(8, 1))
    with torch.inference_mode():
        assert ProgramDecoder(network, threshold=1.0).write(lines)[0] == [Word.KEEP, Word.END]
        # every line starts a range, and every range ends before the next line
        everywhere = program_tokens([not row % 2 for row in range(8)])
        assert ProgramDecoder(network, threshold=0.0).write(lines)[0] == everywhere


def test_steps_of_decoding_give_the_states_of_the_whole_sequence():
    network = random_network(2)
    lines = read(network, varied(8, 2))
    tokens = torch.tensor([[int(Word.BEGIN), Word.OPEN, 1, Word.MIDDLE, 3, Word.CLOSE]])
    ends_range = torch.tensor([[False, False, False, False, True, False]])
    with torch.inference_mode():
        x_BTD = network.embed(tokens, ends_range, lines)
        whole, _ = network.decode(x_BTD)
        past, steps = None, []
        for t in range(tokens.shape[1]):
            h, past = network.decode(x_BTD[:, t : t + 1], past)
            steps.append(h)
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, rtol=1e-4, atol=1e-5)


def test_the_refiner_keeps_its_protocol_and_is_loaded_by_its_backend(model):
    refiner = load_chunk_refiner(ChunkRefinementConfig(backend="writer", model=str(model)))
    assert isinstance(refiner, WriterChunkRefiner)
    assert isinstance(refiner, ChunkRefiner)
    assert refiner.decoder.constrained


HOSTILE = {
    "empty": "",
    "one line": "a",
    "one break": "\n",
    "blank lines": "\n \n\t\n",
    "page": PAGE,
    "blank around": "\n\nx\n\n",
    "many": "a\n" * 100,
    "mixed": "\x00\n\u05e9\n\u4e2d\r\n" * 9,
    "surrogates": "a\ud800b\n\udfff\n" * 5,
    "a program": "remove_lines(start=0, end=99)\nkeep_chunk()\n<|im_end|>\n</s>",
    "10 MB line": "Home\n" + "word " * 2_000_000 + "\nPrivacy",
}


@pytest.mark.parametrize("constrained", [True, False], ids=["grammar", "free"])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_windows_joined_are_the_text_and_their_programs_run(model, text, constrained):
    refiner = WriterChunkRefiner(model, constrained)
    chunks = refiner.split(text)
    assert "\n".join(line for chunk in chunks for line in chunk.lines) == text
    assert [chunk.first_line for chunk in chunks[1:]] == [chunk.last_line + 1 for chunk in chunks[:-1]]
    outputs = refiner.write_programs(chunks)
    programs = [ChunkProgram(c.first_line, c.last_line, o.output) for c, o in zip(chunks, outputs, strict=True)]
    if constrained:
        assert execute(text, programs, OPEN_GATES).n_errors == 0
        for chunk, output in zip(chunks, outputs, strict=True):
            assert not output.truncated
            for op in parse_program(output.output, "strict").ops:
                assert chunk.first_line <= getattr(op, "first", chunk.first_line)
                assert getattr(op, "last", chunk.last_line) <= chunk.last_line


@pytest.mark.slow
def test_a_page_of_100_000_lines_is_written_in_windows(tmp_path):
    network = WriterNetwork(WriterShape(lines=replace(LINES, max_lines=256), n_layers=1, n_heads=2))
    network.encoders[0].head.bias.data.fill_(9.0)
    published_folder(tmp_path / "m", lambda path: save_writer(path, network, {"threshold": 0.5, "weight": 0.8}))
    text = "\n".join(varied(1000, 0) * 100)
    refiner = WriterChunkRefiner(tmp_path / "m")
    chunks = refiner.split(text)
    assert len(chunks) == 391
    outputs = refiner.write_programs(chunks)
    assert outputs[0].output == f"remove_lines(start=0, end={chunks[0].last_line})"
    programs = [ChunkProgram(c.first_line, c.last_line, o.output) for c, o in zip(chunks, outputs, strict=True)]
    assert execute(text, programs, OPEN_GATES).text == ""


def test_lines_that_no_program_can_name_are_not_shown_and_stay(model):
    refiner = WriterChunkRefiner(model)
    assert refiner.write_programs([Chunk(1_000_000, ("a", "b"))])[0].output == "keep_chunk()"
    output = refiner.write_programs([Chunk(999_998, tuple("abcdef"))])[0]
    assert output.n_prompt_tokens == 2
    assert all(getattr(op, "last", 0) <= 999_999 for op in parse_program(output.output, "strict").ops)


def test_a_window_gets_the_same_program_alone_and_in_any_batch(model):
    refiner = WriterChunkRefiner(model)
    chunks = [Chunk(10 * i, tuple(varied(i + 1, i))) for i in range(8)]
    together = refiner.write_programs(chunks)
    assert together == [refiner.write_programs([chunk])[0] for chunk in chunks]
    assert refiner.write_programs(chunks[::-1]) == together[::-1]
    assert len({output.output for output in together}) > 1


def test_writing_leaves_the_callers_random_state_and_threads_alone(model):
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        before = torch.get_rng_state()
        WriterChunkRefiner(model).write_programs([Chunk(0, ("a", "b"))])
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


def test_free_decoding_has_a_fingerprint_of_its_own(model):
    grammar, free = WriterChunkRefiner(model), WriterChunkRefiner(model, constrained=False)
    assert grammar.model_id == free.model_id
    assert grammar.model_id.startswith("tiny@")
    assert grammar.fingerprint != free.fingerprint


def damage_nothing_there(folder):
    shutil.rmtree(folder)


def damage_partial(folder):
    (folder / "model.safetensors").unlink()


def damage_weights(folder):
    data = bytearray((folder / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "model.safetensors").write_bytes(data)


def damage_format(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "format": "corpusmill-line-labeller-1"}))


def damage_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "shape": {**config["shape"], "n_layers": 2}}))


def damage_shape_type(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "shape": {"lines": 3}}))


def damage_json(folder):
    (folder / "config.json").write_text("[]")


@pytest.mark.parametrize(
    "damage",
    [
        damage_nothing_there,
        damage_partial,
        damage_weights,
        damage_format,
        damage_shape,
        damage_shape_type,
        damage_json,
    ],
    ids=lambda f: f.__name__,
)
def test_a_damaged_model_folder_is_refused_with_a_reason(model, tmp_path, damage):
    folder = tmp_path / "copy"
    shutil.copytree(model, folder)
    damage(folder)
    with pytest.raises(ModelError, match="'copy'"):
        load_writer(folder)
