"""Memorization equals `generate` on the CPU in float32, row by row, for random models and whatever they are shown."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from corpusmill.modeling.token_batches import pad_right  # noqa: E402
from corpusmill.pruning.causal_head import CausalHead  # noqa: E402
from corpusmill.pruning.memorization import memorization  # noqa: E402
from corpusmill.pruning.one_pass import score_batch  # noqa: E402
from corpusmill.pruning.running_scores import Wanted  # noqa: E402

VOCAB, EOS = 24, 2


def random_model(seed: int, kind: str):
    """Returns a small model with weights large enough that its continuations are no constant."""
    torch.manual_seed(seed)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": EOS, "initializer_range": 0.6}
    if kind == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=2, n_positions=64, **special, attn_pdrop=0.0
        )
        return transformers.GPT2LMHeadModel(config).eval()
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=48, max_position_embeddings=64, **special,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


MODELS = {(kind, seed): random_model(seed, kind) for kind in ("gpt2", "llama") for seed in (0, 1)}


def generated(model, prompts, n):
    """Returns n greedy tokens after each prompt; the end-of-document token is one like any other."""
    ids = torch.tensor(prompts)
    with torch.inference_mode():
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=n, eos_token_id=None,
            pad_token_id=0,
        )  # fmt: skip
    return out[:, ids.shape[1] :].tolist()


@st.composite
def rows_to_score(draw, m, n):
    """Rows of M prompt tokens and a continuation that is partly what the model says, spoilt in some places."""
    prompts = [draw(st.lists(st.integers(0, VOCAB - 1), min_size=m, max_size=m)) for _ in range(4)]
    spoilt = [draw(st.dictionaries(st.integers(0, n - 1), st.sampled_from([0, EOS, 7]), max_size=3)) for _ in prompts]
    tails = [draw(st.integers(-n, 3)) for _ in prompts]
    return prompts, spoilt, tails


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@settings(deadline=None, max_examples=12, derandomize=True)
@given(data=st.data())
def test_scores_are_those_of_generate(kind, data):
    model = MODELS[kind, data.draw(st.integers(0, 1))]
    m, n = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 8))
    prompts, spoilt, tails = data.draw(rows_to_score(m, n))
    greedy = generated(model, prompts, n)
    truths = [[changes.get(i, t) for i, t in enumerate(row)] for row, changes in zip(greedy, spoilt, strict=True)]
    rows = [(p + t + [5] * 3)[: m + n + tail] for p, t, tail in zip(prompts, truths, tails, strict=True)]
    ids, mask = pad_right(rows)
    lengths = [len(row) for row in rows]
    head = CausalHead.of(model)
    scores = score_batch(model, ids, mask, head=head, keep_states=True, wanted=Wanted(nll=False, el2n=False))
    found = memorization(model, head, ids, lengths, scores, m, n)
    for one, length, truth, said in zip(found, lengths, truths, greedy, strict=True):
        if length < m + n:
            assert one is None, "shorter than M + N has no score, never 0"
            continue
        assert list(one.generated) == said
        assert one.score == sum(a == b for a, b in zip(truth, said, strict=True)) / n
        assert one.score == 1.0 or one.first_mismatch / n <= one.score <= (n - 1) / n
    threshold = data.draw(st.integers(1, n)) / n
    settled = memorization(model, head, ids, lengths, scores, m, n, threshold)
    assert [s and s.memorized for s in settled] == [one and one.score >= threshold for one in found]


def test_an_end_of_document_token_inside_the_continuation_matches_like_any_other():
    """A model that always says EOS: its weights are zero and only that token has a bias."""
    model = random_model(3, "gpt2")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.transformer.ln_f.bias.fill_(1.0)
        model.lm_head.weight[EOS] = 1.0
    row = [4, 5, 6, EOS, EOS, 9, EOS]
    ids, mask = pad_right([row])
    head = CausalHead.of(model)
    scores = score_batch(model, ids, mask, head=head, keep_states=True)
    (one,) = memorization(model, head, ids, [len(row)], scores, 3, 4)
    assert (one.score, one.first_mismatch, one.generated) == (0.75, 2, (EOS,) * 4)
    assert generated(model, [row[:3]], 4) == [[EOS] * 4]
