"""``corpusmill ablation``: progress on stderr, one JSON line on stdout, a wrong recipe is told as wrong usage."""

import json

import yaml

from corpusmill.cli import main

RECIPE = {
    "name": "command",
    "pool": {"files": ["bundled:texts"], "noise": {}, "n_vocab": 400, "max_documents": 20},
    "random": ["1/2"],
}


def test_the_last_line_is_json_with_the_places_of_the_report(tmp_path, capsys):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(RECIPE))
    assert main(["ablation", "--recipe", str(tmp_path / "r.yaml"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr()
    (line,) = said.out.splitlines()
    made = json.loads(line)
    assert (made["n_runs"], made["n_missing"]) == (2, 0)
    assert made["best"] == {"trigram": "no pruning"}
    assert (tmp_path / "out" / "report.html").read_text().startswith("<!doctype html>")
    assert "run 2 of 2: random 50% | trigram | seed 0" in said.err


def test_a_wrong_recipe_is_wrong_usage_and_names_the_value(tmp_path, capsys):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({**RECIPE, "random": [2]}))
    assert main(["ablation", "--recipe", str(tmp_path / "r.yaml"), "--out", str(tmp_path)]) == 2
    assert "2 lies outside [0, 1]" in capsys.readouterr().err
