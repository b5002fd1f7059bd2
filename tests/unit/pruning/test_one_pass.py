import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    BertConfig,
    BertLMHeadModel,
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from corpusmill.errors import ModelError
from corpusmill.pruning.causal_head import CausalHead, check_model
from corpusmill.pruning.one_pass import one_exp, score_batch
from corpusmill.pruning.running_scores import lowest_argmax


def naive(logits, labels):
    """Float64 reference by the definitions: softmax, one-hot, L2 norm."""
    z = logits.double()
    p = torch.softmax(z, -1)
    one_hot = torch.nn.functional.one_hot(labels, z.shape[-1]).double()
    nll = torch.nn.functional.cross_entropy(z.flatten(0, -2), labels.flatten(), reduction="none").view(labels.shape)
    return nll, (p - one_hot).norm(dim=-1), lowest_argmax(z.flatten(0, -2)).view(labels.shape) == labels


@pytest.mark.parametrize("scale", [0.1, 1.0, 8.0])
def test_one_exp_in_float32_agrees_with_the_definitions_in_float64(scale):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(400, 97, generator=generator) * scale + 300
    labels = torch.randint(0, 97, (400,), generator=generator)
    nll, el2n, hit = naive(logits, labels)
    ours = one_exp(logits.clone(), labels)
    torch.testing.assert_close(ours.nll.double(), nll, rtol=2e-5, atol=0)
    torch.testing.assert_close(ours.el2n.double(), el2n, rtol=2e-5, atol=0)
    assert torch.equal(ours.hit, hit)


@pytest.mark.parametrize("gap", [5.0, 12.0, 20.0, 27.0])
def test_one_exp_keeps_its_digits_for_confident_tokens(gap):
    logits = torch.zeros(1, 3)
    logits[0, 1] = gap
    ours = one_exp(logits.clone(), torch.tensor([1]))
    q = 2 * math.exp(-gap) / (1 + 2 * math.exp(-gap))  # probability of the two others together
    assert ours.nll.item() == pytest.approx(-math.log1p(-q), rel=1e-5)
    assert ours.el2n.item() == pytest.approx(math.sqrt(q * q + q * q / 2), rel=1e-5)


def test_scores_stay_in_their_ranges_and_el2n_is_at_least_the_probability_of_being_wrong():
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1000, 50, generator=generator) * 20
    labels = torch.randint(0, 50, (1000,), generator=generator)
    ours = one_exp(logits.clone(), labels)
    assert (ours.nll >= 0).all()
    assert (ours.el2n >= 0).all()
    assert (ours.el2n <= math.sqrt(2) * (1 + 1e-6)).all()
    assert (ours.el2n >= -torch.expm1(-ours.nll) * (1 - 1e-5)).all()


def test_of_equal_logits_the_lowest_id_is_the_greedy_token():
    logits = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 2.0, 2.0]])
    assert one_exp(logits.clone(), torch.tensor([0, 1, 1])).hit.tolist() == [True, False, True]
    assert lowest_argmax(logits).tolist() == [0, 0, 1]


def test_sums_do_not_depend_on_padding_chunk_size_or_the_other_rows(tiny_model):
    generator = torch.Generator().manual_seed(2)
    lengths = [2, 9, 33, 60]
    rows = [torch.randint(2, 300, (n,), generator=generator) for n in lengths]
    alone = [score_batch(tiny_model, row[None], torch.ones(1, len(row), dtype=torch.bool)) for row in rows]
    for width, chunk in ((60, 7), (64, 256)):
        ids = torch.full((4, width), 5)
        mask = torch.zeros((4, width), dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        together = score_batch(tiny_model, ids, mask, head_chunk=chunk)
        assert together.n_scored.tolist() == [n - 1 for n in lengths]
        for i, one in enumerate(alone):
            assert together.nll_sum[i].item() == pytest.approx(one.nll_sum[0].item(), rel=1e-5)
            assert together.el2n_sum[i].item() == pytest.approx(one.el2n_sum[0].item(), rel=1e-5)
            assert together.hits[i].item() == one.hits[0].item()


def test_sums_agree_with_the_logits_that_transformers_computes(tiny_model):
    ids = torch.randint(2, 300, (3, 40), generator=torch.Generator().manual_seed(4))
    with torch.inference_mode():
        logits = tiny_model(input_ids=ids).logits[:, :-1]
    nll, el2n, hit = naive(logits, ids[:, 1:])
    ours = score_batch(tiny_model, ids, torch.ones_like(ids, dtype=torch.bool))
    torch.testing.assert_close(ours.nll_sum, nll.sum(1), rtol=1e-5, atol=0)
    torch.testing.assert_close(ours.el2n_sum, el2n.sum(1), rtol=1e-5, atol=0)
    assert ours.hits.tolist() == hit.sum(1).tolist()


SHAPE = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


@pytest.mark.parametrize(
    "build",
    [
        lambda: GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=1, n_head=2, n_positions=32, **SPECIAL)),
        lambda: CohereForCausalLM(CohereConfig(**SHAPE, num_key_value_heads=2, logit_scale=0.0625, **SPECIAL)),
        lambda: GraniteForCausalLM(GraniteConfig(**SHAPE, num_key_value_heads=2, logits_scaling=4.0, **SPECIAL)),
        lambda: Gemma2ForCausalLM(
            Gemma2Config(**SHAPE, num_key_value_heads=2, head_dim=16, final_logit_softcapping=3.0, **SPECIAL)
        ),
    ],
    ids=["gpt2", "cohere_logit_scale", "granite_logits_scaling", "gemma2_softcap"],
)
def test_the_head_gives_the_logits_of_models_that_change_them(build):
    torch.manual_seed(0)
    model = build().eval()
    check_model(model)
    ids = torch.randint(3, 64, (2, 12), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        nll, _, _ = naive(model(input_ids=ids).logits[:, :-1], ids[:, 1:])
    ours = score_batch(model, ids, torch.ones_like(ids, dtype=torch.bool))
    torch.testing.assert_close(ours.nll_sum, nll.sum(1), rtol=1e-5, atol=0)


def test_rows_of_the_vocabulary_that_no_token_has_get_no_probability(tiny_model):
    n_real = 300
    ids = torch.randint(2, n_real, (1, 20), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        logits = tiny_model(input_ids=ids).logits[:, :-1, :n_real]
    nll, _, _ = naive(logits, ids[:, 1:])
    ours = score_batch(tiny_model, ids, torch.ones_like(ids, dtype=torch.bool), head=CausalHead.of(tiny_model, n_real))
    torch.testing.assert_close(ours.nll_sum, nll.sum(1), rtol=1e-5, atol=0)


def test_a_tokenizer_with_more_ids_than_the_model_is_refused(tiny_model):
    with pytest.raises(ModelError, match="999999 ids but the model's vocabulary has 320 rows"):
        CausalHead.of(tiny_model, 999_999)


def test_a_model_that_sees_later_tokens_is_refused():
    torch.manual_seed(0)
    bert = BertLMHeadModel(BertConfig(**SHAPE, max_position_embeddings=32, is_decoder=False, pad_token_id=0)).eval()
    with pytest.raises(ModelError, match=r"(later tokens|does not know)"):
        check_model(bert)


def test_bfloat16_weights_are_scored_with_float32_arithmetic(tiny_model):
    import copy

    half = copy.deepcopy(tiny_model).to(torch.bfloat16)
    ids = torch.randint(2, 300, (2, 50), generator=torch.Generator().manual_seed(6))
    mask = torch.ones_like(ids, dtype=torch.bool)
    with torch.inference_mode():
        hidden = half.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
        logits = torch.nn.functional.linear(hidden, half.get_output_embeddings().weight)
    nll, el2n, _ = naive(logits, ids[:, 1:])
    ours = score_batch(half, ids, mask)
    assert ours.nll_sum.dtype == torch.float64
    torch.testing.assert_close(ours.nll_sum, nll.sum(1), rtol=1e-5, atol=0)
    torch.testing.assert_close(ours.el2n_sum, el2n.sum(1), rtol=1e-5, atol=0)


class LargestTensor(TorchDispatchMode):
    """Records the most elements that any operation made."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        tensors = [t for t in (out if isinstance(out, tuple | list) else [out]) if isinstance(t, torch.Tensor)]
        self.elements = max([self.elements, *(t.numel() for t in tensors)])
        return out


def test_logits_never_exist_for_more_than_a_chunk_of_positions():
    torch.manual_seed(0)
    shape = {**SHAPE, "vocab_size": 4000, "hidden_size": 16}
    model = LlamaForCausalLM(LlamaConfig(**shape, max_position_embeddings=256, **SPECIAL)).eval()
    ids = torch.randint(3, 4000, (4, 256), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode(), LargestTensor() as largest:
        score_batch(model, ids, torch.ones_like(ids, dtype=torch.bool), head_chunk=64)
    assert largest.elements <= 64 * 4000
    with torch.inference_mode(), LargestTensor() as naive_way:
        model(input_ids=ids)
    assert naive_way.elements == 4 * 256 * 4000, "the recorder sees what a plain forward pass makes"
