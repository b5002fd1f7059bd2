"""Decoding gives the text of plain `generate`, in fewer passes, within memory, and under a grammar."""

import io
import json
import random

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
sentencepiece = pytest.importorskip("sentencepiece")

from corpusmill.prox.causal_model import CausalModel  # noqa: E402
from corpusmill.prox.chunking import Chunk  # noqa: E402
from corpusmill.prox.config import ChunkRefinementConfig  # noqa: E402
from corpusmill.prox.decoding_row import Decoding  # noqa: E402
from corpusmill.prox.greedy_decoding import decode, greedy  # noqa: E402
from corpusmill.prox.program import Normalize, RemoveLines  # noqa: E402
from corpusmill.prox.program_grammar import ChunkGrammar  # noqa: E402
from corpusmill.prox.program_parser import parse_program  # noqa: E402
from corpusmill.prox.refiner import load_chunk_refiner  # noqa: E402

WORDS = ["river", "water", "survey", "home", "share", "print", "snow", "menu", "login", "caf\u00e9", "C:\\new", 'a "b"']


def page(seed, n_lines):
    rng = random.Random(seed)
    return tuple(" ".join(rng.choices(WORDS, k=rng.randint(0, 6))) for _ in range(n_lines))


def program(seed):
    """Returns a program of several calls; every fifth seed says one call over and over."""
    number = seed % 5
    if number == 4:
        return "\n".join(["remove_lines(start=4, end=4)"] * 9)
    calls = []
    while number < 14:
        calls.append(f"remove_lines(start={number}, end={number + number % 3})")
        number += number % 3 + 2
    return "\n".join([*calls, 'normalize(source_str="river water", target_str="")'][: 20 if seed % 5 else -1])


def write_tokenizer(folder):
    lines = [line for seed in range(60) for line in page(seed, 8)] + [program(seed) for seed in range(60)]
    lines += ["keep_chunk()", "skip_chunk()", "untouch_doc()", "normalize(source_str="] * 20
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=stream,
        model_type="bpe",
        vocab_size=420,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(stream.getvalue())


def new_model(kind, context=256):
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=420, n_embd=32, n_layer=2, n_head=4, n_positions=context, initializer_range=0.3
        )
        config.bos_token_id, config.eos_token_id = 1, 2
        return transformers.GPT2LMHeadModel(config).eval()
    shape = {
        "vocab_size": 420,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": context,
        "initializer_range": 0.3,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if kind == "windowed":
        return transformers.MistralForCausalLM(transformers.MistralConfig(**shape, sliding_window=16)).eval()
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape)).eval()


def saved(folder, model):
    folder.mkdir()
    write_tokenizer(folder)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def random_folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("random")
    return {kind: saved(root / kind, new_model(kind)) for kind in ("llama", "gpt2", "windowed")}


@pytest.fixture(scope="module")
def trained_folder(tmp_path_factory):
    """A model that writes programs of many calls, after a few seconds of training on such programs."""
    folder = saved(tmp_path_factory.mktemp("trained") / "writer", new_model("llama"))
    causal = load(folder)
    encoder = causal.tokenizer.encoder
    model = transformers.LlamaForCausalLM.from_pretrained(folder).train()
    model.apply(lambda m: m.reset_parameters() if hasattr(m, "reset_parameters") else None)
    optimizer = torch.optim.AdamW(model.parameters(), lr=6e-3)
    rng, n_steps = random.Random(0), 140
    for step in range(n_steps):
        rows = []
        for _ in range(12):
            seed = rng.randrange(1000)
            rows.append(program_prompt(encoder, seed) + encoder.encode(program(seed)) + [2] * (seed % 5 < 4))
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        labels = ids.masked_fill(ids == 0, -100)
        optimizer.param_groups[0]["lr"] = 6e-3 * (1 - step / n_steps)
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval().save_pretrained(folder)
    return folder


def load(folder, **options):
    return CausalModel(folder, ChunkRefinementConfig(model=str(folder), device="cpu", **options))


def prompts_of(n, longest=60, seed=0):
    rng = random.Random(seed)
    return [[1, *(rng.randrange(3, 420) for _ in range(rng.randint(1, longest)))] for _ in range(n)]


def program_prompt(encoder, seed):
    """Returns a prompt of 6 to 40 ids, whose end tells which program follows."""
    return [1, *encoder.encode(" ".join(page(seed, 3)))[: seed % 31], *encoder.encode(f"[{seed % 5:03d}] [/INST]")]


def program_prompts(model, n):
    return [program_prompt(model.tokenizer.encoder, seed) for seed in range(n)]


def generated(model, prompts, max_new_tokens):
    """Plain `generate` of transformers, padded on the left; rows of equal room together."""
    outputs = [None] * len(prompts)
    rooms = [min(max_new_tokens, model.context - len(ids)) for ids in prompts]
    for room in set(rooms):
        rows = [i for i, this in enumerate(rooms) if this == room]
        width = max(len(prompts[i]) for i in rows)
        ids_BT = torch.tensor([[0] * (width - len(prompts[i])) + list(prompts[i]) for i in rows])
        mask_BT = torch.tensor([[0] * (width - len(prompts[i])) + [1] * len(prompts[i]) for i in rows])
        eos = model.tokenizer.eos
        settings = transformers.GenerationConfig(do_sample=False, max_new_tokens=room, eos_token_id=eos, pad_token_id=0)
        with torch.inference_mode():
            new_BT = model.model.generate(input_ids=ids_BT, attention_mask=mask_BT, generation_config=settings)
        for i, new in zip(rows, new_BT[:, width:].tolist(), strict=True):
            outputs[i] = (new[: new.index(eos)], False) if eos in new else (new, True)
    return outputs


@pytest.mark.parametrize("kind", ["llama", "gpt2", "windowed"])
def test_outputs_of_random_models_equal_generate(random_folders, kind):
    model = load(random_folders[kind])
    assert model.packs == (kind != "windowed")
    prompts = prompts_of(24)
    expected = generated(model, prompts, 20)
    assert len({tuple(ids) for ids, _ in expected}) > 12
    for batch_tokens in (1, 600):
        model.batch_tokens = batch_tokens
        assert greedy(model, prompts, 20) == expected
    assert greedy(model, prompts, 20, drafting=False) == expected


@pytest.mark.parametrize("drafting", [True, False], ids=["drafting", "plain"])
def test_programs_of_a_trained_model_equal_generate(trained_folder, drafting):
    model = load(trained_folder)
    prompts = program_prompts(model, 30)
    expected = generated(model, prompts, 120)
    calls = [len(parse_program(model.tokenizer.decode(ids), "strict").ops) for ids, _ in expected]
    assert max(calls) >= 5, "the model must write real programs"
    model.batch_tokens = 2500  # rows leave and others join
    assert greedy(model, prompts, 120, drafting=drafting) == expected


def test_drafts_save_most_passes(trained_folder):
    passes = {}
    for drafting in (True, False):
        model = load(trained_folder)
        prompts = program_prompts(model, 40)
        counted = []
        head = model.model.get_output_embeddings()  # the only module that every pass calls once
        hook = head.register_forward_pre_hook(lambda *_, seen=counted: seen.append(1))
        greedy(model, prompts, 120, drafting=drafting)
        hook.remove()
        passes[drafting] = len(counted)
    assert passes[True] * 3 <= passes[False]


def test_the_context_limits_outputs_and_no_room_gives_none(random_folders):
    model = load(random_folders["gpt2"])
    prompts = [ids for n in (250, 255, 256, 300) for ids in ([5] * n,)]
    outputs = greedy(model, prompts, 20)
    assert outputs[:2] == generated(model, prompts[:2], 20)
    assert outputs[2:] == [([], True), ([], True)]
    assert greedy(model, [], 20) == []


def test_without_an_end_token_outputs_fill_the_limit(random_folders, tmp_path):
    from dataclasses import replace

    model = load(random_folders["llama"])
    model.tokenizer = replace(model.tokenizer, eos=None)
    prompts = prompts_of(5)
    outputs = greedy(model, prompts, 15)
    assert [(len(ids), cut) for ids, cut in outputs] == [(15, True)] * 5
    assert outputs == generated(model, prompts, 15)


def refuse(limit, rows_seen=None):
    """Returns a hook for the embeddings, which every pass calls; it runs out of memory at more than so many tokens."""

    def hook(_module, inputs):
        n = inputs[0].numel()
        if rows_seen is not None:
            rows_seen.append(n)
        if n > limit:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {n} tokens")

    return hook


@pytest.mark.parametrize("kind", ["llama", "windowed"])
def test_a_batch_that_does_not_fit_is_halved(random_folders, kind):
    model = load(random_folders[kind])
    prompts = prompts_of(9, longest=40)
    expected = generated(model, prompts, 12)
    seen = []
    hook = model.model.get_input_embeddings().register_forward_pre_hook(refuse(100, seen))
    try:
        assert greedy(model, prompts, 12) == expected
    finally:
        hook.remove()
    assert max(seen) > 100, "the first batch must not fit"


def test_only_the_row_that_does_not_fit_alone_fails(random_folders):
    model = load(random_folders["llama"])
    prompts = [*prompts_of(6, longest=30), [7] * 90]
    expected = generated(model, prompts[:6], 12)
    hook = model.model.get_input_embeddings().register_forward_pre_hook(refuse(80))
    try:
        outputs = decode(model, prompts, Decoding(12))
        with pytest.raises(torch.OutOfMemoryError):
            greedy(model, prompts, 12)
    finally:
        hook.remove()
    assert [(o.ids, o.truncated) for o in outputs[:6]] == expected
    assert isinstance(outputs[6].error, torch.OutOfMemoryError)


def test_other_errors_of_the_model_pass_through(random_folders):
    model = load(random_folders["llama"])
    assert model.packs

    def fail(*_):
        raise RuntimeError("device-side assert triggered")

    hook = model.model.get_input_embeddings().register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="device-side assert"):
        greedy(model, prompts_of(2), 4)
    hook.remove()
    assert greedy(model, prompts_of(2), 4) == generated(model, prompts_of(2), 4)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "windowed"])
def test_any_model_under_the_grammar_writes_valid_programs(random_folders, kind):
    model = load(random_folders[kind])
    rng = random.Random(1)
    first = [rng.choice((0, 7, 98, 1000)) for _ in range(8)]
    chunks = [Chunk(number, page(seed, rng.randint(1, 6))) for seed, number in enumerate(first)]
    chunks.append(Chunk(3, ("", "x")))
    prompts = [model.tokenizer.encoder.chunk_ids(None, chunk, "sft")[-60:] for chunk in chunks]
    outputs = decode(model, prompts, Decoding(60), [ChunkGrammar(chunk) for chunk in chunks])
    texts = [model.tokenizer.decode(output.ids) for output in outputs]
    for chunk, output, text in zip(chunks, outputs, texts, strict=True):
        assert text or output.truncated
        parsed = parse_program(text, "strict")
        assert parsed.diagnostics.n_errors == parsed.diagnostics.n_ignored == 0
        assert not parsed.diagnostics.truncated
        assert len(parsed.ops) == text.count("\n") + bool(text)
        for op in parsed.ops:
            if isinstance(op, RemoveLines):
                assert chunk.first_line <= op.first <= op.last <= chunk.last_line
            if isinstance(op, Normalize):
                assert any(op.source in line for line in chunk.lines)
    assert len(set(texts)) > 2


def test_the_grammar_changes_nothing_where_the_free_output_is_in_it(trained_folder):
    model = load(trained_folder)
    prompts = program_prompts(model, 30)
    free = greedy(model, prompts, 120)
    chunks = [Chunk(0, ("river water", *[""] * 60))] * 30
    guided = decode(model, prompts, Decoding(120), [ChunkGrammar(chunk) for chunk in chunks])
    same = 0
    for (ids, cut), output, chunk in zip(free, guided, chunks, strict=True):
        grammar = ChunkGrammar(chunk)
        state = grammar.feed(grammar.start(), b"".join(model.pieces[i] for i in ids))
        if not cut and state is not None and state.whole:
            assert (output.ids, output.truncated) == (ids, False)
            same += 1
    assert same > 15


def test_a_loop_is_stopped_cut_and_named(trained_folder):
    refiner = load_chunk_refiner(ChunkRefinementConfig(model=str(trained_folder), max_new_tokens=120))
    model = refiner.causal
    prompts = program_prompts(model, 15)
    watched = decode(model, prompts, Decoding(120, stops_loops=True))
    n_looped = 0
    for output, (ids, cut) in zip(watched, greedy(model, prompts, 120), strict=True):
        calls = [line.strip() for line in model.tokenizer.decode(ids).split("\n")]
        if max(map(calls.count, calls)) <= 3:
            assert (output.ids, output.truncated, output.looped) == (ids, cut, False)
            continue
        n_looped += 1
        assert (output.looped, output.truncated) == (True, False)
        written = refiner._output(output, 24)
        kept = written.output.split("\n")
        assert (written.reason, written.truncated) == ("looped", False)
        assert kept == calls[: len(kept)]
        assert calls[len(kept)] in kept
    assert 0 < n_looped < 15


def test_refiner_outputs_do_not_depend_on_drafting(trained_folder):
    text = "\n".join(page(3, 40))
    written = []
    for drafting in (True, False):
        config = ChunkRefinementConfig(
            model=str(trained_folder), drafting=drafting, window_tokens=60, max_new_tokens=60, max_prompt_tokens=230
        )
        refiner = load_chunk_refiner(config)
        written.append(refiner.write_programs(refiner.split(text)))
    assert len(written[0]) > 3
    assert written[0] == written[1]


def test_a_chunk_that_does_not_fit_into_memory_has_its_own_error(trained_folder):
    refiner = load_chunk_refiner(ChunkRefinementConfig(model=str(trained_folder), max_new_tokens=8))
    chunks = [Chunk(0, ("river",)), Chunk(0, ("snow water " * 12,)), Chunk(4, ("home",))]
    alone = [refiner.write_programs([chunk])[0] for chunk in chunks]
    limit = min(alone[1].n_prompt_tokens - 1, 2 * alone[0].n_prompt_tokens)
    hook = refiner.causal.model.get_input_embeddings().register_forward_pre_hook(refuse(limit))
    outputs = refiner.write_programs(chunks)
    hook.remove()
    assert [outputs[0], outputs[2]] == [alone[0], alone[2]]
    assert (outputs[1].output, outputs[1].reason) == ("", "error.out_of_memory_error")


def test_a_tokenizer_that_cannot_be_read_as_bytes_refuses_the_grammar(tmp_path):
    from tokenizers import Tokenizer, models, pre_tokenizers

    from corpusmill.errors import ConfigError

    vocabulary = {"[UNK]": 0, "a": 1, "</s>": 2}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    folder = tmp_path / "words"
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    new_model("llama").save_pretrained(folder)
    model = load(folder)
    assert greedy(model, [[1, 1]], 5) == generated(model, [[1, 1]], 5)
    with pytest.raises(ConfigError, match="cannot be read as bytes"):
        decode(model, [[1, 1]], Decoding(5), [ChunkGrammar(Chunk(0, ("a",)))])
