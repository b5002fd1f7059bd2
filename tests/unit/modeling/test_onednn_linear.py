"""GPT-2's transposed layers and single products through oneDNN."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from corpusmill.modeling.onednn_linear import OneDnnConv1D, linear, onednn_works, use_onednn  # noqa: E402

SETTINGS = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 16}


def gpt2():
    torch.manual_seed(0)
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**SETTINGS, bos_token_id=0, eos_token_id=0)).eval()


def test_gpt2_gives_the_same_logits_and_keeps_its_weights():
    model, ids = gpt2(), torch.arange(12)[None]
    names = list(model.state_dict())
    with torch.inference_mode():
        before = model(input_ids=ids).logits
    assert use_onednn(model) == (2 * 4 + 1 if onednn_works() else 0)
    assert isinstance(model.transformer.h[0].mlp.c_fc, OneDnnConv1D) == onednn_works()
    with torch.inference_mode():
        torch.testing.assert_close(model(input_ids=ids).logits, before, rtol=1e-4, atol=1e-5)
    assert list(model.state_dict()) == names
    model(input_ids=ids, labels=ids).loss.backward()
    assert model.transformer.h[0].mlp.c_fc.weight.grad is not None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_single_product_is_that_of_torch(dtype):
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(7, 16, generator=generator).to(dtype), torch.randn(9, 16, generator=generator).to(dtype)
    bias = torch.arange(9).to(dtype)
    with torch.inference_mode():
        for part in (slice(None), slice(3, 8)):
            for b in (None, bias[part]):
                expected = torch.nn.functional.linear(x, weight[part], b)
                torch.testing.assert_close(linear(x, weight[part], b), expected, rtol=1e-5, atol=1e-5)
