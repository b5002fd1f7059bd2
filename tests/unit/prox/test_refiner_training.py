"""Training of the labeller on generated pages: it learns, it repeats, and a model folder is whole or absent."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from corpusmill.errors import ConfigError
from corpusmill.prox.checkpointed_training import Budget
from corpusmill.prox.labelled_pages import LabelledPage
from corpusmill.prox.labeller_folder import load_labeller, published_folder
from corpusmill.prox.line_features import line_features
from corpusmill.prox.line_network import NetworkShape, one_thread
from corpusmill.prox.line_training import (
    LONGEST_MEMBER,
    best_threshold,
    examples_of,
    member_budgets,
    spliced,
    train_network,
)
from corpusmill.prox.refiner_training import train_labeller

SHAPE = NetworkShape(n_buckets=512, word_width=8, width=16, n_layers=1, n_heads=2, max_lines=64, dropout=0.0)
MENU = ["Home", "About us", "Contact", "Log in", "Privacy | Terms", "Share this page", "Next >", "Tags: news"]


def make_row(seed, domain):
    rng = np.random.default_rng(seed)
    words = ["the", "river", "house", "was", "old", "and", "people", "went", "there", "often"]
    text = [" ".join(rng.choice(words, 14)).capitalize() + "." for _ in range(int(rng.integers(4, 9)))]
    head, tail = list(rng.choice(MENU, 5)), list(rng.choice(MENU, 4))
    lines = [*head, *text, *tail]
    remove = [i for i in range(len(lines)) if i < len(head) or i >= len(head) + len(text)]
    unsure = [len(head)] if seed % 5 == 0 else []
    return {"doc_id": str(seed), "domain": domain, "tier": "human", "lines": lines, "remove": remove, "unsure": unsure}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("labelled")
    for name, seeds in (("train", range(40)), ("dev", range(100, 110))):
        rows = [json.dumps(make_row(seed, f"{name}{seed}.example")) for seed in seeds]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    return folder / "train.jsonl", folder / "dev.jsonl"


def train(files, out, **options):
    with one_thread():
        return train_labeller(*files, out, shape=SHAPE, **options)


@pytest.fixture(scope="module")
def trained(files, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "m"
    lines = []
    quality = train(files, out, steps=60, seed=1, progress=lines.append)
    return out, quality, lines


def test_training_lowers_the_loss_and_learns_menus(trained):
    _, quality, lines = trained
    losses = [float(line.split("loss ")[1].split()[0]) for line in lines]
    assert losses[-1] < losses[0] / 2
    assert quality["full_text"]["keep_f1"] > 0.9
    assert quality["full_text"]["keep_f1"] > quality["full_text"]["remove_nothing"]["keep_f1"]
    assert quality["full_text"]["validity"] == 1.0


def test_the_config_says_how_the_model_was_made_and_how_good_it_is(trained, files):
    out, quality, _ = trained
    config = json.loads((out / "config.json").read_text())
    assert config["quality"] == quality
    assert config["training"]["steps"] == 60
    assert config["training"]["command"].startswith("corpusmill build-refiner --kind labeller --train train.jsonl")
    assert set(config["training"]["data_sha256"]) == {"train.jsonl", "dev.jsonl"}
    assert config["training"]["dev_domains_in_training"] == 0
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert load_labeller(out).threshold == config["threshold"]


def test_the_model_card_shows_the_measured_figures_and_the_command(trained):
    out, quality, _ = trained
    card = (out / "README.md").read_text()
    scores = quality["full_text"]
    assert f"| {scores['keep_f1']:.3f} | {scores['char_f1']:.3f} | {scores['remove_f1']:.3f} |" in card
    assert json.loads((out / "config.json").read_text())["training"]["command"] in card
    assert "document head" not in card.lower()


def test_equal_seeds_and_steps_give_equal_bytes_and_other_seeds_do_not(files, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        train(files, tmp_path / name, steps=4, seed=seed)
    a, b, c = (tmp_path / name for name in "abc")
    for name in ("model.safetensors", "config.json"):
        assert (a / name).read_bytes() == (b / name).read_bytes()
    assert (a / "model.safetensors").read_bytes() != (c / "model.safetensors").read_bytes()


def test_training_leaves_the_callers_random_state_and_threads_alone(files, tmp_path):
    torch.manual_seed(11)
    threads, expected = torch.get_num_threads(), torch.get_rng_state()
    train(files, tmp_path / "m", steps=1, seed=0)
    assert torch.equal(torch.get_rng_state(), expected)
    assert torch.get_num_threads() == threads


def test_training_by_minutes_ends(files, tmp_path):
    train(files, tmp_path / "m", minutes=0.01)
    assert json.loads((tmp_path / "m" / "config.json").read_text())["training"]["steps"] >= 1


@pytest.mark.parametrize(
    ("steps", "minutes"), [(None, None), (1, 1.0), (0, None), (None, -1.0), (None, float("nan"))], ids=repr
)
def test_exactly_one_positive_budget_is_needed(steps, minutes):
    with pytest.raises(ConfigError, match="exactly one"):
        Budget(steps, minutes)


@pytest.mark.parametrize(
    ("budget", "steps"),
    [
        (Budget(360, None), [360]),
        (Budget(401, None), [201, 200]),
        (Budget(5000, None), [1667, 1667, 1666]),
        (Budget(1, None), [1]),
    ],
)
def test_a_budget_of_steps_is_shared_by_its_members(budget, steps):
    assert [member.steps for member in member_budgets(budget)] == steps


@pytest.mark.parametrize(("minutes", "members"), [(0.1, 1), (6.0, 2), (10.0, 3), (60.0, 3)])
def test_a_budget_of_minutes_is_shared_by_its_members(minutes, members):
    parts = member_budgets(Budget(None, minutes))
    assert len(parts) == members
    assert sum(part.minutes for part in parts) == pytest.approx(minutes)
    assert parts[0].spent(0, 30.0 * parts[0].minutes) == pytest.approx(0.5)
    assert parts[0].spent(LONGEST_MEMBER, 0.0) == 1.0  # an idle machine ends early


def make_example(seed):
    row = make_row(seed, "d")
    labels = np.zeros(len(row["lines"]), dtype=np.int8)
    labels[row["remove"]] = 1
    return examples_of([LabelledPage("x", "d", "human", tuple(row["lines"]), labels)])[0]


def test_a_spliced_window_has_the_features_and_labels_of_its_lines():
    page, other = make_example(1), make_example(2)
    features, labels = spliced(page, other)
    menu = [line for line, label in zip(page.page.lines, page.page.labels, strict=True) if label == 1]
    text = [line for line, label in zip(other.page.lines, other.page.labels, strict=True) if label == 0]
    n_head = int(np.flatnonzero(page.page.labels == 0)[0])
    lines = menu[:n_head] + text + menu[n_head:]
    assert labels.tolist() == [1] * n_head + [0] * len(text) + [1] * (len(menu) - n_head)
    expected = line_features(lines)
    for name in ("local", "words", "offsets", "edges"):
        np.testing.assert_array_equal(getattr(features, name), getattr(expected, name))
    window = features.window(1, 4)
    np.testing.assert_array_equal(window.words, line_features(lines[1:4]).words)


def test_a_page_without_an_article_is_not_spliced():
    page, menu = make_example(1), make_example(2)
    menu.page.labels[:] = 1
    assert spliced(page, menu)[0] is page.features
    assert spliced(menu, page)[1] is menu.page.labels


@pytest.mark.parametrize(("low", "high", "expected"), [(0.52, 0.9, 0.6), (0.1, 0.9, 0.5)])
def test_the_threshold_is_the_best_on_dev_and_the_middle_where_all_are_equal(low, high, expected):
    page = make_example(1).page
    assert best_threshold([([page], [np.where(page.labels == 1, high, low)])]) == expected


def test_a_longer_training_gives_an_ensemble_that_is_measured_whole(files, tmp_path, monkeypatch):
    monkeypatch.setattr("corpusmill.prox.line_training.MEMBER_STEPS", 10)
    lines = []
    quality = train(files, tmp_path / "m", steps=20, seed=1, progress=lines.append)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert (config["members"], config["training"]["steps"], len(config["training"]["best_steps"])) == (2, 20, 2)
    assert any(line.startswith("member 2 of 2 step 10: ") for line in lines)
    assert "2 networks whose logits are averaged" in (tmp_path / "m" / "README.md").read_text()
    one, two = load_labeller(tmp_path / "m").networks
    assert not torch.equal(one.head.weight, two.head.weight)
    assert config["quality"] == quality


def test_pages_of_unsure_lines_only_do_not_break_training():
    pages = [LabelledPage("x", "d", "human", ("a", "b"), np.array([-1, -1], dtype=np.int8))]
    examples = examples_of(pages)
    network = train_network([(1.0, examples)], [examples], SHAPE, Budget(2, None), 0, lambda _: None).network
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


def test_an_interrupted_write_leaves_the_old_model_and_no_rest(trained, tmp_path):
    out = tmp_path / "m"
    published_folder(out, lambda folder: (folder / "config.json").write_text("old"))

    def fail(folder):
        (folder / "config.json").write_text("new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        published_folder(out, fail)
    assert (out / "config.json").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_folder_that_is_no_model_is_not_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(ConfigError, match="'mine' exists"):
        published_folder(tmp_path / "mine", lambda _: None)
    assert (tmp_path / "mine" / "notes.txt").read_text() == "keep me"


KILLED = textwrap.dedent(
    """
    import os, signal, sys
    from pathlib import Path
    from corpusmill.prox import line_training
    from corpusmill.prox.line_network import NetworkShape
    from corpusmill.prox.refiner_training import train_labeller

    line_training.MEMBER_STEPS = 12
    shape = NetworkShape(n_buckets=512, word_width=8, width=16, n_layers=1, n_heads=2, max_lines=64, dropout=0.1)
    train, dev, out = map(Path, sys.argv[1:4])

    def progress(line):
        print(line, flush=True)
        if len(sys.argv) > 4 and line.startswith(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGKILL)

    train_labeller(train, dev, out, steps=24, seed=3, shape=shape, progress=progress)
    """
)


def run_training(script, files, out, *end):
    """Runs a training in a process of its own; returns its exit code and the lines it printed."""
    command = [sys.executable, "-c", script, *map(str, files), str(out), *end]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=300, check=False)
    return done.returncode, done.stdout.splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("end", ["member 1 of 2 step 6:", "member 2 of 2 step 4:"])
def test_a_killed_training_goes_on_and_gives_the_model_of_an_undisturbed_one(files, tmp_path, end):
    code, _ = run_training(KILLED, files, tmp_path / "m", end)
    assert code == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".m.training"], "no half model"
    code, lines = run_training(KILLED, files, tmp_path / "m")
    assert code == 0
    member, step = end.partition(" step ")[0], int(end.rstrip(":").rpartition(" ")[2])
    assert f"{member} goes on from step {step - 2}" in lines
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    code, _ = run_training(KILLED, files, tmp_path / "undisturbed")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "m" / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()


@pytest.mark.parametrize("damage", ["other data", "cut"])
def test_state_of_another_training_and_damaged_state_are_not_gone_on_from(files, tmp_path, damage):
    code, _ = run_training(KILLED, files, tmp_path / "m", "member 1 of 2 step 6:")
    state = tmp_path / ".m.training" / "member 1 of 2.pt"
    if damage == "cut":
        state.write_bytes(state.read_bytes()[:1000])
    else:
        files = [files[0], tmp_path / "other.jsonl"]
        files[1].write_text(json.dumps(make_row(77, "elsewhere")) + "\n")
    code, lines = run_training(KILLED, files, tmp_path / "m")
    assert code == 0
    assert lines[0].endswith(": member 1 of 2 starts again")
    load_labeller(tmp_path / "m")
