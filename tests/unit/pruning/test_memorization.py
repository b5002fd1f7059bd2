import pytest
import torch

from corpusmill.modeling.token_batches import pad_right
from corpusmill.pruning.causal_head import CausalHead
from corpusmill.pruning.memorization import cropped_cache, first_mismatches, memorization
from corpusmill.pruning.one_pass import score_batch


def rows_of_text(tokenizer, repeated_text, n=48, length=40):
    ids = tokenizer.encode_batch([repeated_text])[0]
    seen = [ids[i : i + length] for i in range(30)]
    generator = torch.Generator().manual_seed(9)
    noise = [torch.randint(2, 300, (length,), generator=generator).tolist() for _ in range(6)]
    half_known = [row[:20] + torch.randint(2, 300, (length - 20,), generator=generator).tolist() for row in seen[:6]]
    one_wrong = [[*row[:24], (row[24] + 1) % 300, *row[25:]] for row in seen[6:12]]
    return (seen + noise + half_known + one_wrong)[:n]


def memorized(model, rows, m, n):
    ids, mask = pad_right(rows)
    head = CausalHead.of(model)
    scores = score_batch(model, ids, mask, head=head, keep_states=True)
    return memorization(model, head, ids, [len(row) for row in rows], scores, m, n), scores


@pytest.mark.parametrize(("m", "n"), [(16, 16), (8, 20), (1, 4)])
def test_scores_equal_those_of_generate_on_the_cpu(tiny_model, tiny_tokenizer, repeated_text, m, n):
    rows = rows_of_text(tiny_tokenizer, repeated_text)
    ours, _ = memorized(tiny_model, rows, m, n)
    prompts = torch.tensor([row[:m] for row in rows])
    with torch.inference_mode():
        out = tiny_model.generate(
            prompts, attention_mask=torch.ones_like(prompts), do_sample=False, max_new_tokens=n, eos_token_id=None,
            pad_token_id=0,
        )[:, m:].tolist()  # fmt: skip
    assert [list(one.generated) for one in ours] == out
    expected = [
        sum(a == b for a, b in zip(g, row[m : m + n], strict=True)) / n for g, row in zip(out, rows, strict=True)
    ]
    assert [one.score for one in ours] == expected
    assert len(set(expected)) > 2, "the rows should not all have one score, or this test proves little"


def test_the_first_mismatch_bounds_the_score(tiny_model, tiny_tokenizer, repeated_text):
    n = 16
    found, _ = memorized(tiny_model, rows_of_text(tiny_tokenizer, repeated_text), 16, n)
    for one in found:
        if one.first_mismatch == n:
            assert one.score == 1.0
        else:
            assert one.first_mismatch / n <= one.score <= (n - 1) / n


def test_a_row_shorter_than_prompt_and_continuation_has_no_score_and_does_not_disturb_others(
    tiny_model, tiny_tokenizer, repeated_text
):
    rows = rows_of_text(tiny_tokenizer, repeated_text)[:5]
    mixed = [rows[0], rows[1][:31], rows[2], rows[3][:2]]
    found, scores = memorized(tiny_model, mixed, 16, 16)
    assert found[1] is None
    assert found[3] is None
    full, _ = memorized(tiny_model, [rows[0], rows[2]], 16, 16)
    assert [found[0], found[2]] == full
    assert first_mismatches(scores.hit, [len(row) for row in mixed], 16, 16)[1] is None


def test_an_end_of_document_token_inside_the_continuation_can_match(tiny_model, tiny_tokenizer):
    eod = tiny_tokenizer.eod_id
    rows = torch.randint(2, 300, (1, 8), generator=torch.Generator().manual_seed(3)).tolist()
    found, _ = memorized(tiny_model, [rows[0] + [eod] * 8], 8, 8)
    # whatever the model says after the prompt, decoding goes on for all 8 tokens and compares ids like any other
    assert len(found[0].generated) == 8
    again, _ = memorized(tiny_model, [rows[0] + list(found[0].generated)], 8, 8)
    assert again[0].score == 1.0


def test_a_cache_of_other_layers_is_not_cut():
    assert cropped_cache(None, [0], 3) is None
    assert cropped_cache(object(), [0], 3) is None


def test_a_model_without_a_usable_cache_gives_the_same_scores(tiny_model, tiny_tokenizer, repeated_text, monkeypatch):
    rows = rows_of_text(tiny_tokenizer, repeated_text)
    ids, mask = pad_right(rows)
    head = CausalHead.of(tiny_model)
    scores = score_batch(tiny_model, ids, mask, head=head, keep_states=True)
    lengths = [len(row) for row in rows]
    with_cache = memorization(tiny_model, head, ids, lengths, scores, 16, 16)
    assert memorization(tiny_model, head, ids, lengths, scores._replace(cache=None), 16, 16) == with_cache
