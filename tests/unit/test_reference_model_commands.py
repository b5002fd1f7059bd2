import json

import pytest

from corpusmill.cli import main

RECIPE = """
name: by_command
corpus: {files: ["bundled:sources/articles_home.txt"]}
tokenizer: {n_vocab: 300}
model: test
training: {steps: 3, batch_size: 2, warmup_steps: 1}
validation: {share: "1/5", max_sequences: 2}
"""


@pytest.mark.slow
def test_a_recipe_becomes_a_registered_model_in_one_command(home, tmp_path, capsys):
    (tmp_path / "r.yaml").write_text(RECIPE)
    assert main(["build-reference-model", "--recipe", str(tmp_path / "r.yaml")]) == 0
    said = capsys.readouterr()
    made = json.loads(said.out.splitlines()[-1])
    assert made["model"].startswith("registered:by_command@")
    assert "seed0 step 3 of 3: loss" in said.err
    assert main(["build-reference-model", "--recipe", str(tmp_path / "r.yaml")]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {**made, "new": 0}


def test_a_recipe_that_is_wrong_is_wrong_usage(home, tmp_path, capsys):
    (tmp_path / "r.yaml").write_text(RECIPE.replace("steps: 3", "steps: 0"))
    assert main(["build-reference-model", "--recipe", str(tmp_path / "r.yaml")]) == 2
    assert "training.steps=0" in capsys.readouterr().err
    assert main(["build-reference-model", "--recipe", str(tmp_path / "other.yaml")]) == 2
    assert "recipes beside it: r" in capsys.readouterr().err
