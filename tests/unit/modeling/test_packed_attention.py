"""Packed logits equal those of each prompt alone, for models that can be packed; others are told apart."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from corpusmill.modeling import packed_attention, slot_cache  # noqa: E402
from corpusmill.modeling.packed_attention import (  # noqa: E402
    decode_step,
    packed,
    packed_logits,
    prefill_step,
    supports_packing,
)
from corpusmill.modeling.slot_cache import SlotCache  # noqa: E402
from corpusmill.modeling.token_batches import shared_beginning  # noqa: E402

SHAPE = {
    "vocab_size": 90,
    "hidden_size": 48,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def model_of(kind):
    torch.manual_seed(0)
    if kind == "gpt2":
        config = transformers.GPT2Config(vocab_size=90, n_embd=48, n_layer=2, n_head=4, n_positions=64)
        config.bos_token_id = config.eos_token_id = 2
        return transformers.GPT2LMHeadModel(config).eval()
    if kind == "qwen":
        return transformers.Qwen3ForCausalLM(
            transformers.Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=16)
        ).eval()
    if kind == "windowed":
        config = transformers.MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=4)
        return transformers.MistralForCausalLM(config).eval()
    if kind == "bloom":
        config = transformers.BloomConfig(vocab_size=90, hidden_size=48, n_layer=1, n_head=4)
        return transformers.BloomForCausalLM(config).eval()
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(**SHAPE, num_key_value_heads={"shared": 1, "grouped": 2, "llama": 4}[kind])
    ).eval()


def alone(model, ids):
    with torch.inference_mode():
        return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


@pytest.mark.parametrize("kind", ["llama", "grouped", "shared", "gpt2", "qwen"])
@pytest.mark.parametrize("by_rows", [True, False], ids=["row by row", "all rows at once"])
def test_packed_steps_equal_whole_passes(kind, by_rows, monkeypatch):
    monkeypatch.setattr(packed_attention, "_attends_by_rows", lambda _: by_rows)  # False on a GPU
    model = model_of(kind)
    assert supports_packing(model, 90)
    rng = torch.Generator().manual_seed(1)
    rows = [torch.randint(3, 90, (n,), generator=rng).tolist() for n in (9, 4, 6)]
    known = [5, 1, 3]  # tokens of each prompt; the rest comes in two steps of uneven width
    cache = SlotCache(4, 12)
    with torch.inference_mode(), packed(model):
        step = prefill_step(cache, [0, 1, 2], known, model)
        ids = [i for row, n in zip(rows, known, strict=True) for i in row[:n]]
        first = packed_logits(model, ids, [p for n in known for p in range(n)], step, [4, 5, 8])
        widths = [3, 1, 2]
        step = decode_step(cache, known, widths, model)
        ids = [i for row, n, w in zip(rows, known, widths, strict=True) for i in row[n : n + w]]
        places = [n + p for n, w in zip(known, widths, strict=True) for p in range(w)]
        second = packed_logits(model, ids, places, step)
        cache.move(2, 3, 5)  # rows move, and rejected tokens are written again
        cache.move(3, 1, 5)
        step = decode_step(cache, [6, 3], [1, 1], model)
        third = packed_logits(model, [rows[0][6], rows[2][3]], [6, 3], step)
    whole = [alone(model, row) for row in rows]
    torch.testing.assert_close(first, torch.stack([whole[0][4], whole[1][0], whole[2][2]]), atol=2e-5, rtol=1e-4)
    expected = torch.cat([whole[0][5:8], whole[1][1:2], whole[2][3:5]])
    torch.testing.assert_close(second, expected, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(third, torch.stack([whole[0][6], whole[2][3]]), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["llama", "grouped", "shared", "gpt2"])
def test_prompts_that_begin_alike_are_read_from_where_they_differ(kind, monkeypatch):
    monkeypatch.setattr(slot_cache, "BLOCK_ROWS", 1)  # 16 tokens a block: prompts of several blocks, the last one short
    model = model_of(kind)
    rng = torch.Generator().manual_seed(2)
    common = torch.randint(3, 90, (7,), generator=rng).tolist()
    rows = [common + torch.randint(3, 90, (n,), generator=rng).tolist() for n in (41, 1, 26)]
    lengths = [len(row) - 1 for row in rows]  # the last token comes in a step of its own
    shared = shared_beginning([row[:-1] for row in rows])
    assert shared == 6, "the second prompt keeps a token of its own"
    cache = SlotCache(5, 50)
    with torch.inference_mode(), packed(model):
        step = prefill_step(cache, [2, 3, 4], lengths, model, shared)
        assert list(step.lengths) == [47, 1, 26]
        ids = rows[0][:-1] + rows[1][shared:-1] + rows[2][shared:-1]
        first = packed_logits(model, ids, step.places.tolist(), step, [46, 47, 73])
        for row in range(3):
            cache.move(row + 2, row, lengths[row])
        step = decode_step(cache, lengths, [1, 1, 1], model)
        second = packed_logits(model, [row[-1] for row in rows], lengths, step)
    whole = [alone(model, row) for row in rows]
    torch.testing.assert_close(first, torch.stack([logits[-2] for logits in whole]), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(second, torch.stack([logits[-1] for logits in whole]), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", ["windowed", "bloom"])
def test_models_of_another_kind_of_attention_are_told_apart(kind):
    model = model_of(kind)
    before = model.config._attn_implementation
    assert not supports_packing(model, 90)
    assert model.config._attn_implementation == before
    assert torch.isfinite(alone(model, [5, 6, 7])).all()


def test_the_model_attends_as_before_behind_the_block():
    model = model_of("llama")
    expected = alone(model, [5, 6, 7])
    with pytest.raises(NotImplementedError, match="lacks its step"), packed(model):
        alone(model, [5, 6, 7])
    torch.testing.assert_close(alone(model, [5, 6, 7]), expected)
