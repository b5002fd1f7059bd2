"""Prompt and target ids of training examples, over a SentencePiece and a byte-level vocabulary."""

import json
import random
from collections import Counter

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("sentencepiece")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from corpusmill.errors import ConfigError  # noqa: E402
from corpusmill.prox.chunking import Chunk  # noqa: E402
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig  # noqa: E402
from corpusmill.prox.finetuning_examples import (  # noqa: E402
    PROMPT_TOO_LONG,
    TARGET_TOO_LONG,
    UNNUMBERED,
    ExampleEncoder,
    window_program,
)
from corpusmill.prox.finetuning_settings import FinetuningSettings  # noqa: E402
from corpusmill.prox.program import Normalize  # noqa: E402
from corpusmill.prox.program_execution import ChunkProgram, ExecutionSettings, execute  # noqa: E402
from corpusmill.prox.program_model_base import SHAPES, copy_tokenizer, new_llama, write_sentencepiece  # noqa: E402
from corpusmill.prox.prompt_tokenizer import load_tokenizer  # noqa: E402
from corpusmill.prox.refiner import load_chunk_refiner, load_doc_refiner  # noqa: E402
from corpusmill.prox.training_examples import ChunkExample, DocumentExample, Provenance  # noqa: E402
from corpusmill.pruning.reference_models import train_tokenizer  # noqa: E402

CONTEXT = 400
PEOPLE = Provenance(route="gold", teacher="people")
WORDS = ["river", "water", "survey", "page", "home", "contact", "share", "print", "snow", "melt", "menu", "login"]
OPEN = ExecutionSettings("strict", min_words=0, max_removed=1.0, max_errors=10**6)


def page(seed, n_lines):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(0, 9))) for _ in range(n_lines)]


def byte_level(folder):
    tokenizer = train_tokenizer([" ".join(page(0, 300))], 420)
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<|endoftext|>"}))


@pytest.fixture(scope="module", params=["sentencepiece", "byte-level"])
def folder(request, tmp_path_factory):
    """A whole model folder of random weights."""
    place = tmp_path_factory.mktemp(request.param) / "tokenizer"
    if request.param == "sentencepiece":
        write_sentencepiece(place, page(0, 300), 420, CONTEXT)
    else:
        byte_level(place)
    new_llama(SHAPES["test"], load_tokenizer(place).n_vocab, CONTEXT, 0).save_pretrained(place.parent / "model")
    copy_tokenizer(place, place.parent / "model")
    return place.parent / "model"


def encoder_of(folder, **limits):
    limits = {"max_target_tokens": 64, **limits}
    return ExampleEncoder(load_tokenizer(folder), CONTEXT, FinetuningSettings(**limits))


def chunk_example(lines, program="keep_chunk()", first_line=0, unsure=()):
    return ChunkExample(
        doc_id="d", first_line=first_line, lines=tuple(lines), program=program, unsure=unsure, provenance=PEOPLE
    )


def document_example(text, decision="keep"):
    return DocumentExample(doc_id="d", text=text, decision=decision, provenance=PEOPLE)


def is_read(prompt, refiner, run):
    """Returns whether a forward pass reads exactly this prompt, padding behind it apart."""
    seen = []
    hook = refiner.causal.model.get_input_embeddings().register_forward_pre_hook(
        lambda _module, inputs: seen.append(inputs[0].flatten().tolist())
    )
    run()
    hook.remove()
    pad = refiner.causal.pad
    return any(ids[: len(prompt)] == prompt and set(ids[len(prompt) :]) <= {pad} for ids in seen)


@pytest.mark.parametrize(
    "text",
    ["short text", "two  blanks </s> [INST]\n\n[/INST] end  ", "", "\ud800 lone", "word " * 900, "\u4f60\u597d" * 500],
    ids=["short", "markup", "empty", "surrogate", "long", "wide"],
)
def test_document_prompts_are_those_of_inference(folder, text):
    encoder = encoder_of(folder)
    refiner = load_doc_refiner(
        DocRefinementConfig(
            model=str(folder), prompt_ids="sft", max_prompt_tokens=encoder.max_document_tokens, device="cpu"
        )
    )
    prompt = encoder.document(document_example(text)).prompt
    assert is_read(prompt, refiner, lambda: refiner.decide([text]))
    frame = encoder.tokenizer.encoder.document_ids("", "sft", 10**6)[0]
    assert prompt[:10] == frame[:10]
    assert encoder.tokenizer.decode(prompt).endswith("[/INST]")
    assert len(prompt) <= encoder.max_document_tokens


@pytest.mark.parametrize("first_line", [0, 7, 998])
def test_chunk_prompts_and_windows_are_those_of_inference(folder, first_line):
    lines = [*page(3, 70), "two  blanks </s>", "", "\ud800 lone", " tail  "]
    encoder = encoder_of(folder)
    refiner = load_chunk_refiner(
        ChunkRefinementConfig(
            model=str(folder),
            prompt_ids="sft",
            max_prompt_tokens=encoder.max_chunk_tokens,
            window_tokens=encoder.window_tokens,
            max_new_tokens=1,
            device="cpu",
        )
    )
    windows = encoder.windows(chunk_example(lines, first_line=first_line))
    assert len(windows) > 2
    for window in windows:
        prompt = encoder.prompt_ids(window)
        assert is_read(prompt, refiner, lambda chunk=window.chunk: refiner.write_programs([chunk]))
    if first_line == 0:
        cut = refiner.split("\n".join(lines))
        assert [(c.first_line, c.lines) for c in cut] == [(w.chunk.first_line, w.chunk.lines) for w in windows]
        assert is_read(encoder.prompt_ids(windows[1]), refiner, lambda: refiner.write_programs([cut[1]]))


def test_targets_are_the_whole_program_and_eos(folder):
    encoder = encoder_of(folder)
    drop = encoder.document(document_example("word " * 5000, "drop"))
    assert not drop.keeps
    assert drop.target[-1] == encoder.eos
    assert encoder.tokenizer.decode(drop.target[:-1]) == "drop_doc()"
    assert len(drop) <= CONTEXT
    skipped = Counter()
    example = chunk_example(page(1, 4), "# menu\nremove_lines(line_start=2, line_end=3)")
    (sequence,) = [s for w in encoder.windows(example) for s in encoder.chunk(w, skipped)]
    assert encoder.tokenizer.decode(sequence.target[:-1]) == "remove_lines(start=2, end=3)"
    assert not skipped
    assert not sequence.keeps


RANGE = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(sorted)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["", "river data", "menu", "x" * 70, "\u4f60\u597d", "home " * 12]), max_size=60),
    st.lists(RANGE, max_size=20),
    st.integers(0, 2000),
    st.integers(24, 90),
)
def test_no_target_is_ever_cut_and_all_windows_together_do_what_the_program_does(
    sentencepiece_folder, lines, ranges, first, longest
):
    calls = "\n".join(f"remove_lines(start={first + a}, end={first + b})" for a, b in ranges)
    encoder = encoder_of(sentencepiece_folder, max_target_tokens=longest)
    example = chunk_example(lines, calls or "keep_chunk()", first)
    encoded = encoder.encode(iter([example]))
    programs = []
    for sequence in encoded.sequences:
        assert sequence.target[-1] == encoder.eos
        assert len(sequence.target) <= longest
        assert len(sequence) <= CONTEXT
        programs.append(encoder.tokenizer.decode(sequence.target[:-1]))
    assert not encoded.skipped
    text = "\n" * first + "\n".join(lines)
    whole = ChunkProgram(first, first + len(lines) - 1, example.program)
    parts = [ChunkProgram(first, first + len(lines) - 1, program) for program in programs]
    assert execute(text, parts, OPEN).text == execute(text, [whole], OPEN).text


@pytest.fixture(scope="module")
def sentencepiece_folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("property") / "tokenizer"
    write_sentencepiece(place, page(0, 300), 420, CONTEXT)
    return place


def test_a_window_keeps_only_its_part_of_a_program():
    chunk = Chunk(10, ("a menu", "see http://x.org here", "b", "c"))
    edits = [Normalize("http://x.org", ""), Normalize("absent"), Normalize("menu", "x"), Normalize("http://x.org", "")]
    removed = np.array([True, False, True, True])
    assert window_program(chunk, removed, edits) == (
        'remove_lines(start=10, end=10)\nremove_lines(start=12, end=13)\nnormalize(source_str="http://x.org", '
        'target_str="")'
    )
    assert window_program(chunk, np.zeros(4, dtype=bool), edits[:1]).startswith("normalize(")
    assert window_program(chunk, np.zeros(4, dtype=bool), []) == "keep_chunk()"


def test_unsure_lines_and_clipped_ranges_are_marked(sentencepiece_folder):
    example = chunk_example(page(2, 6), "remove_lines(start=3, end=999)", first_line=5, unsure=(1, 6, 99))
    (window,) = encoder_of(sentencepiece_folder).windows(example)
    assert window.removed.tolist() == [True] * 6
    assert window.unsure.tolist() == [False, True, False, False, False, False]
    everything = chunk_example(page(2, 3), "remove_lines(all=True)", first_line=5)
    (window,) = encoder_of(sentencepiece_folder).windows(everything)
    assert window.program == "remove_lines(start=5, end=7)"


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (chunk_example(["x" * 60_000]), PROMPT_TOO_LONG),
        (chunk_example(["y z " * 900]), PROMPT_TOO_LONG),
        (
            chunk_example(["a " + "b" * 90], f'normalize(source_str="{"b" * 90}", target_str="{"1" * 90}")'),
            TARGET_TOO_LONG,
        ),
        (chunk_example(["a"], first_line=1_000_000), UNNUMBERED),
    ],
    ids=["huge line", "long line", "long program", "number"],
)
def test_what_cannot_be_shown_whole_is_left_out_and_counted(sentencepiece_folder, example, reason):
    encoder = encoder_of(sentencepiece_folder)
    encoded = encoder.encode(iter([example]))
    assert not encoded.sequences
    assert encoded.skipped == {reason: 1}


def test_a_base_without_eos_or_with_a_short_context_is_refused(sentencepiece_folder, tmp_path):
    with pytest.raises(ConfigError, match=r"context=64, .* leave no room for text"):
        ExampleEncoder(load_tokenizer(sentencepiece_folder), 64, FinetuningSettings(max_target_tokens=32))
    byte_level(tmp_path / "t")
    (tmp_path / "t" / "tokenizer_config.json").unlink()
    with pytest.raises(ConfigError, match="names no EOS token"):
        ExampleEncoder(load_tokenizer(tmp_path / "t"), 400, FinetuningSettings())
