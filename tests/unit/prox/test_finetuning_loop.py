"""The loop's loss, schedule and limits; resumption after a kill is tested on a real process beside the trainer."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from corpusmill.errors import ModelError  # noqa: E402
from corpusmill.prox.checkpointed_training import Budget  # noqa: E402
from corpusmill.prox.finetuning_examples import TrainingSequence  # noqa: E402
from corpusmill.prox.finetuning_loop import CHECKPOINT, Finetuning, LoopPlan, program_loss  # noqa: E402
from corpusmill.prox.finetuning_mix import Mix, MixPlan  # noqa: E402
from corpusmill.prox.finetuning_settings import FinetuningSettings  # noqa: E402
from corpusmill.prox.finetuning_validation import Score  # noqa: E402
from corpusmill.prox.program_model_base import SHAPES, new_llama  # noqa: E402

SEQUENCES = [
    TrainingSequence([1, 5, 6, 7, 8, 9], [10, 11, 2], keeps=True),
    TrainingSequence([1, 5, 6], [12, 2], keeps=False),
    TrainingSequence([1, 30, 31, 32, 33], [10, 14, 15, 16, 2], keeps=False),
]


def model():
    torch.set_num_threads(1)
    return new_llama(SHAPES["test"], 40, 64, 0)


def loop(network, tmp_path, progress=lambda _: None, **settings):
    chosen = FinetuningSettings(**{"batch_examples": 3, "evaluations": 1, "device": "cpu", **settings})
    plan = LoopPlan(Budget(4, None), chosen, 0, is_new=True, identity="x")
    mix = Mix([s.keeps for s in SEQUENCES], MixPlan(1, 2), 0)
    return Finetuning(
        network, SEQUENCES, mix, plan, tmp_path, lambda folder: folder.mkdir(parents=True),
        lambda _: Score(0.5, {}), progress,
    )  # fmt: skip


def test_the_loss_is_on_the_program_alone_and_its_first_token_weighs_more():
    network = model()
    expected, weights = 0.0, 0.0
    for sequence in SEQUENCES:
        ids = sequence.prompt + sequence.target
        log_TV = network(input_ids=torch.tensor([ids])).logits[0].log_softmax(dim=-1)
        for place, token in enumerate(sequence.target):
            weight = 5.0 if place == 0 else 1.0
            expected -= weight * float(log_TV[len(sequence.prompt) + place - 1, token].detach())
            weights += weight
    loss, total = program_loss(network, SEQUENCES, 5.0)  # one padded batch
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    assert total == weights == 7 + 6 + 9


def test_batches_under_a_token_budget_give_the_same_losses_and_weights(tmp_path):
    wide, narrow = model(), model()
    first = loop(wide, tmp_path / "a").run()
    second = loop(narrow, tmp_path / "b", batch_tokens=1).run()
    assert second.losses == pytest.approx(first.losses, rel=1e-5)
    for a, b in zip(wide.parameters(), narrow.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)
    assert first.losses[-1] < first.losses[0]


def test_the_rate_warms_up_and_falls_along_a_cosine():
    plan = LoopPlan(Budget(100, None), FinetuningSettings(warmup_steps=4), 0, is_new=False, identity="")
    assert plan.rate_at(0, 0.0) == pytest.approx(1e-5 / 5)
    assert plan.rate_at(50, 0.5) == pytest.approx(0.55e-5)
    assert plan.rate_at(99, 1.0) == pytest.approx(1e-6)
    scratch = LoopPlan(Budget(100, None), FinetuningSettings(), 0, is_new=True, identity="")
    assert scratch.rate_at(50, 0.0) == 1e-3


def test_a_loss_that_is_not_finite_is_an_error(tmp_path):
    network = model()
    with torch.no_grad():
        network.lm_head.weight.fill_(float("nan"))
    with pytest.raises(ModelError, match=r"training loss is nan at step 0; .* Lower learning_rate"):
        loop(network, tmp_path).run()


class Cramped(torch.nn.Module):
    """A model on a device that holds few tokens: longer inputs end in torch's own error."""

    def __init__(self, network, room):
        super().__init__()
        self.network, self.room, self.shapes = network, room, []

    def get_output_embeddings(self):
        return self.network.get_output_embeddings()

    def forward(self, input_ids, **options):
        self.shapes.append(tuple(input_ids.shape))
        if input_ids.numel() > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return self.network(input_ids=input_ids, **options)


def test_a_batch_that_runs_out_of_memory_is_tried_again_in_smaller_parts(tmp_path):
    lines = []
    cramped = Cramped(model(), room=20)
    run = loop(cramped, tmp_path / "a", lines.append, batch_tokens=64).run()
    assert run.losses == pytest.approx(loop(model(), tmp_path / "b").run().losses, rel=1e-5)
    assert lines[0] == "step 0: out of memory, going on with 32 tokens a forward pass"
    assert lines[1] == "step 0: out of memory, going on with 16 tokens a forward pass"
    assert not any("out of memory" in line for line in lines[2:])


def test_one_example_that_does_not_fit_is_an_error_that_says_so(tmp_path):
    with pytest.raises(ModelError, match=r"step 0 runs out of memory with one example of 10 tokens at a time"):
        loop(Cramped(model(), room=5), tmp_path, batch_tokens=64).run()


def test_a_damaged_checkpoint_or_one_of_another_run_is_refused(tmp_path):
    loop(model(), tmp_path).run()
    other = loop(model(), tmp_path)
    other.plan = LoopPlan(Budget(4, None), other.plan.settings, 0, is_new=True, identity="y")
    with pytest.raises(ModelError, match="is of a run with other data, settings or base"):
        other.run()
    (tmp_path / CHECKPOINT).write_bytes(b"half a file")
    with pytest.raises(ModelError, match=r"cannot be read .* delete it"):
        loop(model(), tmp_path).run()


def test_the_callers_random_state_is_left_alone(tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    loop(model(), tmp_path).run()
    assert torch.equal(torch.rand(1), expected)
