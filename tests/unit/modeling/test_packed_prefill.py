"""The logits behind the last token of many prompts: packed, rectangular, and by a model's own forward."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from corpusmill.modeling import packed_prefill  # noqa: E402
from corpusmill.modeling.onednn_linear import OneDnnLinear, onednn_works, use_onednn  # noqa: E402
from corpusmill.modeling.packed_prefill import is_plain_llama, last_logits, plan_prefill  # noqa: E402


def llama(**settings):
    torch.manual_seed(0)
    shape = {
        "vocab_size": 300,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "max_position_embeddings": 700,
        "initializer_range": 0.2,
    }
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape | settings)).eval()


def prompts():
    generator = torch.Generator().manual_seed(1)
    return [torch.randint(0, 300, (n,), generator=generator).tolist() for n in (1, 7, 30, 31, 620, 64, 2)]


def alone(model, some):
    with torch.inference_mode():
        return torch.stack([model(input_ids=torch.tensor([ids])).logits[0, -1] for ids in some])


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"attention_bias": True, "mlp_bias": True},
        {"num_hidden_layers": 1},
        {"tie_word_embeddings": True},
        {"hidden_act": "gelu"},
    ],
    ids=["plain", "biases", "one layer", "tied", "another gate"],
)
def test_packed_prompts_have_the_logits_of_prompts_alone(settings):
    model = llama(**settings)
    assert is_plain_llama(model)
    for some in (prompts(), [[7, 8, 9, *ids] for ids in prompts()]):  # the second ones begin alike
        torch.testing.assert_close(last_logits(model, some, 0), alone(model, some), atol=1e-4, rtol=1e-4)


def test_rectangular_prompts_have_the_logits_of_prompts_alone(monkeypatch):
    model = llama()
    expected = alone(model, prompts())
    monkeypatch.setattr(packed_prefill, "_packs", lambda _: False)  # as on a GPU
    torch.testing.assert_close(last_logits(model, prompts(), 5), expected, atol=1e-4, rtol=1e-4)


def test_another_architecture_takes_its_own_forward():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=700, initializer_range=0.2
    )
    model = transformers.GPT2LMHeadModel(config).eval()
    assert not is_plain_llama(model)
    torch.testing.assert_close(last_logits(model, prompts(), 0), alone(model, prompts()), atol=1e-4, rtol=1e-4)
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_angles_that_depend_on_the_batch_are_left_to_the_model():
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert not is_plain_llama(llama(rope_parameters=rope))


def test_packed_batches_hold_no_more_than_the_budget_and_each_prompt_once():
    lengths = [5, 90, 40, 200, 1, 60, 60]
    batches = plan_prefill(llama(), lengths, 100)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert batches[0] == [3]
    assert all(len(batch) == 1 or sum(lengths[i] for i in batch) <= 100 for batch in batches)


def test_one_long_prompt_among_short_ones_makes_no_cache_above_the_budget():
    lengths = [1000, *[1] * 900]
    batches = plan_prefill(llama(), lengths, 16_384)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert max(len(batch) * max(lengths[i] for i in batch) for batch in batches) <= 16_384
    assert batches[1] == list(range(16, 901))


def test_linear_layers_through_onednn_multiply_as_torch_does_and_keep_their_weights():
    if not onednn_works():
        pytest.skip("this torch has no oneDNN")
    model = llama(attention_bias=True)
    names = list(model.state_dict())
    expected = alone(model, prompts())
    assert use_onednn(model) == 3 * 7 + 1
    assert isinstance(model.lm_head, OneDnnLinear)
    assert use_onednn(model) == 0
    torch.testing.assert_close(alone(model, prompts()), expected, atol=1e-4, rtol=1e-4)
    assert list(model.state_dict()) == names
    loss = model(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2, 3]])).loss
    loss.backward()
    assert model.lm_head.weight.grad.abs().sum() > 0


def test_half_precision_stays_with_torch():
    assert use_onednn(llama().to(torch.bfloat16)) == 0
