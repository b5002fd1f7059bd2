import numpy as np
import pytest
import torch

from corpusmill.errors import ConfigError, ModelError
from corpusmill.modeling.train_lm import CHECKPOINT, TrainingSettings, batch_rows, new_model, train_lm

SETTINGS = TrainingSettings(steps=30, batch_size=4, warmup_steps=5, checkpoint_every=10)


@pytest.fixture(scope="module")
def sequences():
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    return (np.cumsum(rng.integers(1, 3, size=(50, 32)), axis=1) % 60 + 2).astype(np.int64)


def fresh():
    return new_model("test", 64, 0, 7)


class Killed(Exception):
    pass


def test_training_lowers_the_loss_and_is_the_same_every_time(sequences):
    first, second = fresh(), fresh()
    run, again = train_lm(first, sequences, SETTINGS), train_lm(second, sequences, SETTINGS)
    assert run.losses == again.losses
    assert len(run.losses) == 30
    assert np.mean(run.losses[-5:]) < run.losses[0] - 0.5
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not first.training


def test_a_killed_run_resumes_with_the_loss_curve_it_would_have_had(sequences, tmp_path):
    whole_model = fresh()
    whole = train_lm(whole_model, sequences, SETTINGS)

    def kill(step, _):
        if step == 17:
            raise Killed

    with pytest.raises(Killed):
        train_lm(fresh(), sequences, SETTINGS, tmp_path, progress=kill)
    model = fresh()
    run = train_lm(model, sequences, SETTINGS, tmp_path)
    assert run.resumed_at == 10
    assert run.losses == whole.losses
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole_model.parameters(), strict=True))
    assert not (tmp_path / CHECKPOINT).exists()


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(sequences, tmp_path):
    def kill(step, _):
        if step == 11:
            raise Killed

    with pytest.raises(Killed):
        train_lm(fresh(), sequences, SETTINGS, tmp_path, progress=kill)
    with pytest.raises(ModelError, match="is of a run with other data, settings or model"):
        train_lm(fresh(), sequences[1:], SETTINGS, tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(b"half a file")
    with pytest.raises(ModelError, match=r"cannot be read .* delete it"):
        train_lm(fresh(), sequences, SETTINGS, tmp_path)


def test_every_epoch_visits_every_sequence_once_in_another_order():
    settings = TrainingSettings(steps=1, batch_size=5, seed=3)
    rows = np.concatenate([batch_rows(step, 20, settings) for step in range(8)])
    assert sorted(rows[:20]) == sorted(rows[20:]) == list(range(20))
    assert rows[:20].tolist() != rows[20:].tolist()
    wrapped = np.concatenate([batch_rows(step, 7, settings) for step in range(7)])
    assert np.bincount(wrapped).tolist() == [5] * 7


def test_both_readings_of_the_papers_schedule():
    cosine = TrainingSettings(steps=100, warmup_steps=10, learning_rate=1.0)
    rates = [cosine.rate_at(step) for step in range(100)]
    assert max(rates) == rates[9] == 1.0
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)
    ramp = TrainingSettings(steps=100, learning_rate=1.0, schedule="ramp")
    assert [ramp.rate_at(0), ramp.rate_at(99)] == [pytest.approx(0.01), 1.0]


def test_no_text_a_bad_preset_and_a_diverging_run_are_errors(sequences):
    with pytest.raises(ModelError, match="no packed sequences"):
        train_lm(fresh(), sequences[:0], SETTINGS)
    with pytest.raises(ConfigError, match="preset='huge' is unknown"):
        new_model("huge", 10, 0, 0)
    model = fresh()
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(ModelError, match="training loss became nan at step 0"):
        train_lm(model, sequences, SETTINGS)


def test_the_state_of_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    fresh()
    assert torch.equal(torch.rand(1), expected)
