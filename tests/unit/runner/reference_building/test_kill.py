"""A real kill in the middle of training: the retry has the loss curve and the weights of a run that was left alone."""

import json
import os
import signal
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow
RECIPE = {
    "name": "killed",
    "corpus": {"files": ["bundled:sources/articles_*.txt"]},
    "tokenizer": {"n_vocab": 400},
    "model": "test",
    "training": {"steps": 60, "batch_size": 8, "learning_rate": 4e-3, "warmup_steps": 5, "checkpoint_every": 7},
    "checkpoints": [5, 20],
    "validation": {"share": "1/8", "max_sequences": 8},
}
CODE = """
import json, sys, torch
from corpusmill.runner.chain import initialise
from corpusmill.runner.reference_building import chain
torch.set_num_threads(1)
initialise([])
print(json.dumps(chain.build(json.loads(sys.argv[1]), sys.argv[2], lambda line: print(line, flush=True))))
"""


def start(home, run_id):
    return subprocess.Popen(
        [sys.executable, "-c", CODE, json.dumps(RECIPE), run_id],
        env={**os.environ, "CORPUSMILL_HOME": str(home)}, stdout=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The home of a build that was left alone, and what it registered."""
    home = tmp_path_factory.mktemp("whole")
    process = start(home, "run")
    out = process.communicate(timeout=300)[0]
    assert process.returncode == 0, out
    return home, json.loads(out.splitlines()[-1])


def test_a_training_that_is_killed_ends_as_if_it_had_not_been(whole, tmp_path):
    killed = start(tmp_path, "run-1")
    for line in killed.stdout:
        if line.startswith("seed0 step 33"):
            os.killpg(killed.pid, signal.SIGKILL)
            break
    assert killed.wait() == -signal.SIGKILL
    assert len(list(tmp_path.glob("scratch/reference_models/killed/*/seed0/training_state.pt"))) == 1
    retried = start(tmp_path, "run-2")
    lines = retried.communicate(timeout=300)[0].splitlines()
    assert retried.returncode == 0
    resumed = [int(line.rsplit(" ", 1)[1]) for line in lines if "went on from step" in line]
    assert resumed in ([28], [35])
    assert not [line for line in lines if line.startswith("seed0 step 3 ")]
    made = json.loads(lines[-1])
    assert len(made["models"]) == 3
    assert made["models"] == whole[1]["models"], "versions are digests of weights, tokenizer and loss curve"
    assert not list(tmp_path.glob("scratch/reference_models/killed/*/seed0"))


def test_the_curves_of_a_build_are_stored_as_json_and_drawn(whole):
    home, made = whole
    (plot,) = home.glob("warehouse/_runs/reference_models/killed/*/loss_curves.svg")
    (curves,) = home.glob("warehouse/_runs/reference_models/killed/*/loss_curves.json")
    stored = json.loads(curves.read_text())
    assert len(stored["seed0"]["losses"]) == 60
    assert [step for step, _ in stored["seed0"]["held_out"]] == [5, 20, 60]
    assert stored["seed0"]["held_out"][-1][1] == pytest.approx(made["validation_nll"])
    drawn = plot.read_text()
    assert drawn.count("<circle") == 3
    assert "held-out" in drawn
