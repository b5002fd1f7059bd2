"""State of a killed training: known by all that decides the weights, taken whole or not at all, safe from others."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from corpusmill.prox import checkpointed_training
from corpusmill.prox.checkpointed_training import Budget, CheckpointedTraining, LoopSettings, StateFolder, state_beside
from corpusmill.prox.labelled_pages import LabelledPage

SETTINGS = LoopSettings("network", 0.01, 2, 2, "nats", "score")
PAGE = LabelledPage("d", "a.example", "human", ("Home", "A text."), np.array([1, 0], np.int8))


class Fitting(CheckpointedTraining[torch.nn.Linear]):
    """Fits noise."""

    def loss(self):
        x = torch.from_numpy(self.rng.normal(size=(4, 3)).astype(np.float32))
        return (self.network(x) - x.sum(dim=1, keepdim=True)).square().mean()

    def dev_scores(self):
        return [1 / (1 + float(self.average.weight.detach().square().sum()))]


def fitted(state, steps=6):
    """Returns the weights of a training, and the lines that it told."""
    torch.manual_seed(0)
    lines = []
    training = Fitting(torch.nn.Linear(3, 1), SETTINGS, np.random.default_rng(0), lines.append, state)
    training.run(Budget(steps, None))
    return training.network.weight.detach(), lines


def test_state_is_known_by_texts_labels_and_code(tmp_path, monkeypatch):
    def identity(*pages):
        return state_beside(tmp_path / "m", [pages], ["kind"]).identity

    base = identity(PAGE)
    assert base == identity(replace(PAGE, labels=PAGE.labels.copy()))
    others = [
        replace(PAGE, lines=("Home", "Another text.")),
        replace(PAGE, labels=np.array([1, -1], np.int8)),
        replace(PAGE, tier="silver"),
    ]
    assert len({base, *map(identity, others)}) == 4
    (tmp_path / "checkpointed_training.py").write_text("LEARNING_RATE = 1\n")
    monkeypatch.setattr(checkpointed_training, "__file__", str(tmp_path / "checkpointed_training.py"))
    assert identity(PAGE) != base


@pytest.mark.parametrize(
    "damaged",
    [
        {"best": {"weight": torch.zeros(1, 9)}},
        {"optimizer": {}},
        {"numpy_random": "[]"},
        {"torch_random": torch.zeros(3)},
        {"average": {}},
    ],
    ids=lambda damaged: next(iter(damaged)),
)
def test_state_that_does_not_fit_in_one_part_is_taken_in_none(tmp_path, damaged):
    whole, _ = fitted(None)
    state = StateFolder(tmp_path / "state", "a")
    fitted(state, steps=2)
    stored = state.read("network", print)
    state.write("network", {**stored, **damaged})
    weights, lines = fitted(state)
    assert lines[0].startswith("the state does not fit (")
    assert lines[0].endswith("): network starts again")
    assert torch.equal(weights, whole)


@pytest.mark.parametrize("found", [["a list"], {"network": {}}], ids=["no mapping", "no identity"])
def test_a_file_that_is_no_state_is_left_aside(tmp_path, found):
    torch.save(found, tmp_path / "network.pt")
    lines = []
    assert StateFolder(tmp_path, "a").read("network", lines.append) is None
    assert lines == ["network.pt is of other data or settings: network starts again"]


def test_trainings_of_one_model_at_a_time_do_not_write_into_each_other(tmp_path, monkeypatch):
    state, other = (StateFolder(tmp_path / "state", "a") for _ in range(2))
    save, written = torch.save, []

    def save_while_another_ends(values, file):
        save(values, file)
        if len(written) < 2:
            written.append(values)
            if len(written) == 1:
                other.write("network", {"steps": 2})
            else:
                other.remove()

    monkeypatch.setattr(torch, "save", save_while_another_ends)
    state.write("network", {"steps": 1})
    assert [values["steps"] for values in written] == [1, 2]
    assert state.read("network", print) == {"steps": 1, "identity": "a"}
    assert [path.name for path in state.folder.iterdir()] == ["network.pt"]
