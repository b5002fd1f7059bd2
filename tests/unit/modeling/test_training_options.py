"""Accumulation, bfloat16, torch.compile, memory maps, and what a kill between two checkpoints may cost."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from corpusmill.errors import ModelError
from corpusmill.modeling.train_lm import CHECKPOINT, TrainingSettings, new_model, train_lm

SETTINGS = TrainingSettings(steps=12, batch_size=6, warmup_steps=3, checkpoint_every=5)


@pytest.fixture(scope="module")
def sequences():
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    return (np.cumsum(rng.integers(1, 3, size=(50, 32)), axis=1) % 60 + 2).astype(np.uint16)


def fresh():
    return new_model("test", 64, 0, 7)


def losses(sequences, **changes):
    return np.array(train_lm(fresh(), sequences, replace(SETTINGS, **changes)).losses)


def test_accumulated_micro_batches_give_the_losses_of_the_whole_batch(sequences):
    whole = losses(sequences)
    for size in (1, 4, 6):
        np.testing.assert_allclose(losses(sequences, micro_batch=size), whole, rtol=2e-5)
    assert losses(sequences, micro_batch=6).tolist() == whole.tolist()


def test_bfloat16_keeps_float32_weights_and_comes_close(sequences):
    model = fresh()
    half = train_lm(model, sequences, replace(SETTINGS, precision="bfloat16")).losses
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert half != losses(sequences).tolist()
    np.testing.assert_allclose(half, losses(sequences), rtol=1e-2)


COMPILED = """
import sys
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from corpusmill.modeling.train_lm import TrainingSettings, train_lm


class Bigram(nn.Module):
    config = "bigram"

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.head = nn.Embedding(64, 8), nn.Linear(8, 64, bias=False)

    def forward(self, input_ids, use_cache):
        return SimpleNamespace(logits=self.head(self.table(input_ids)))


torch.set_num_threads(1)
rows = np.cumsum(np.random.default_rng(0).integers(1, 3, size=(50, 32)), axis=1) % 60 + 2
for compiled in ("no", "yes"):
    settings = TrainingSettings(steps=6, batch_size=6, warmup_steps=3, micro_batch=3, compiled=compiled)
    print(*train_lm(Bigram(), rows, settings).losses)
print(torch._dynamo.utils.counters["stats"]["unique_graphs"])
"""


@pytest.mark.slow
def test_a_compiled_model_has_nearly_the_same_losses():
    """In a process of its own, because the compiler warns; of two layers, because it takes seconds for each kernel."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, timeout=500)
    if "InvalidCxxCompiler" in done.stderr:
        pytest.skip("torch.compile needs a C++ compiler, and there is none")
    assert done.returncode == 0, done.stderr[-2000:]
    plain, compiled, graphs = done.stdout.splitlines()[-3:]
    np.testing.assert_allclose(*([float(x) for x in line.split()] for line in (plain, compiled)), rtol=1e-5)
    assert int(graphs) >= 1


def test_a_memory_map_trains_as_the_array_does(sequences, tmp_path):
    sequences.tofile(tmp_path / "tokens")
    mapped = np.memmap(tmp_path / "tokens", dtype=np.uint16, mode="r", shape=sequences.shape)
    assert train_lm(fresh(), mapped, SETTINGS, data_id="x").losses == losses(sequences).tolist()


class Killed(Exception):
    pass


def test_a_hook_that_was_due_when_the_run_was_killed_is_called_again(sequences, tmp_path):
    """Models saved on the way must not be missing because the kill came between two checkpoints."""
    called = []

    def die(step, _):
        called.append(step)
        if step == 10:
            raise Killed

    with pytest.raises(Killed):
        train_lm(fresh(), sequences, SETTINGS, tmp_path, after_step=die)
    again = []
    train_lm(fresh(), sequences, SETTINGS, tmp_path, after_step=lambda step, _: again.append(step))
    assert called == list(range(1, 11))
    assert again == list(range(6, 13))


def test_a_kept_state_makes_a_second_call_free_and_knows_its_data(sequences, tmp_path):
    first, second = fresh(), fresh()
    run = train_lm(first, sequences, SETTINGS, tmp_path, data_id="one", keep_state=True)
    again = train_lm(second, sequences, SETTINGS, tmp_path, data_id="one", keep_state=True)
    assert (again.resumed_at, again.losses) == (12, run.losses)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert (tmp_path / CHECKPOINT).exists()
    with pytest.raises(ModelError, match="run with other data"):
        train_lm(fresh(), sequences, SETTINGS, tmp_path, data_id="two")
