"""Recipes and arms: by configuration alone, refused with a message where they make no sense."""

import re

import pytest
import yaml

from corpusmill.ablation.arms import arms_of, run_key, runs_of, score_key, used_references
from corpusmill.ablation.config import load_ablation, parse_ablation
from corpusmill.errors import ConfigError

RECIPE = {
    "name": "trial",
    "pool": {"files": ["bundled:texts"], "noise": {}},
    "references": {"crawl": {"preset": "test"}, "clean": {"corpus": "clean"}, "unused": {}},
    "random": [0.5, "3/10"],
    "scores": [{"references": ["crawl", "clean"], "columns": ["el2n"], "fractions": ["0.5"]}],
    "corpora": {"gopher": [{"clean": {"preset": "gopher"}}]},
    "students": {"trigram": {}, "small": {"kind": "gpt", "preset": "test", "seeds": [0, 1, 2]}},
}


def recipe(**changes):
    return parse_ablation({**RECIPE, **changes})


def test_every_arm_of_the_grid_is_there_once():
    labels = [arm.label for arm in arms_of(recipe())]
    assert labels == [
        "no pruning",
        "random 50%",
        "random 30%",
        "el2n bottom 50% by crawl",
        "el2n middle 50% by crawl",
        "el2n top 50% by crawl",
        "el2n bottom 50% by clean",
        "el2n middle 50% by clean",
        "el2n top 50% by clean",
        "gopher",
    ]
    assert used_references(recipe()) == ["crawl", "clean"]


def test_runs_are_arms_times_students_times_seeds_with_cheap_students_first():
    runs = runs_of(recipe())
    assert len(runs) == 10 * (1 + 3)
    assert [run.student for run in runs[:11]] == ["trigram"] * 10 + ["small"]
    assert len({run.label for run in runs}) == len(runs)


def test_a_result_is_kept_while_nothing_that_it_depends_on_changes():
    def keys(changed):
        return {run.label: run_key(changed, "pool", run, {}) for run in runs_of(changed)}

    before = keys(recipe())
    assert len(set(before.values())) == len(before)
    grown = keys(recipe(random=[0.5, "3/10", 0.1], description="another"))
    assert {label: grown[label] for label in before} == before
    references = {**RECIPE["references"], "crawl": {"preset": "test", "steps": 7}}
    other = keys(recipe(references=references))
    changed = {label for label in before if before[label] != other[label]}
    assert changed == {label for label in before if "by crawl" in label}


def test_a_checkpoint_is_scored_anew_but_not_trained_anew():
    from corpusmill.ablation.arms import reference_key

    early = recipe(references={"crawl": {"preset": "test", "checkpoint": 5}, "clean": {"corpus": "clean"}})
    assert reference_key(early, "pool", "crawl") == reference_key(recipe(), "pool", "crawl")
    assert score_key(early, "pool", "crawl") != score_key(recipe(), "pool", "crawl")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": [{"references": ["other"]}]}, "scores name references"),
        ({"scores": [{"references": ["crawl"], "columns": ["beauty"]}]}, "beauty"),
        ({"random": [0]}, "keeps nothing"),
        ({"random": [1.5]}, "outside"),
        ({"corpora": {"x": [{"ingest": {}}]}}, "must have one key"),
        ({"corpora": {"x": [{"clean": {"preset": "nope"}}]}}, "nope"),
        ({"pool": {"files": ["a"], "table": "b"}}, "exactly one of files and table"),
        ({"pool": {"files": ["a"], "test_share": 0.6, "reference_share": 0.5}}, "leave no pool"),
        ({"students": {}}, "no student"),
        ({"students": {"t": {"kind": "trigram", "seeds": [0, 1]}}}, "deterministic"),
        ({"baseline": False, "random": [], "scores": [], "corpora": {}}, "no arm"),
        ({"references": {"crawl": {"checkpoint": 900}}, "scores": []}, "checkpoint=900"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused_with_the_value(changes, message):
    with pytest.raises(ConfigError, match=message):
        recipe(**changes)


def test_two_arms_of_one_name_and_too_many_runs_are_refused():
    with pytest.raises(ConfigError, match="given twice"):
        arms_of(recipe(random=[0.5, "1/2"]))
    with pytest.raises(ConfigError, match="more than 1024"):
        runs_of(recipe(students={"s": {"kind": "gpt", "seeds": list(range(200))}}))


def test_paths_of_a_recipe_are_taken_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXT_FOLDER", "texts")
    values = {**RECIPE, "pool": {"files": ["$TEXT_FOLDER/a.jsonl", "bundled:texts"]}}
    values["measures"] = {"classification": {"sst": {"train": "glue/train.tsv", "task": "sst2"}}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(values))
    loaded = load_ablation(tmp_path / "r.yaml")
    assert loaded.pool.files == (str(tmp_path / "texts" / "a.jsonl"), "bundled:texts")
    assert loaded.measures.classification["sst"].train == str(tmp_path / "glue" / "train.tsv")


def test_the_shipped_recipes_and_the_one_of_the_page_make_arms_and_runs(repository, monkeypatch):
    monkeypatch.setenv("CORPUSMILL_ABLATION_TEXT", "/nowhere/text.jsonl.gz")
    paths = sorted((repository / "dags" / "ablations").glob("*.yaml"))
    assert len(paths) >= 6
    for path in paths:
        loaded = load_ablation(path)
        assert loaded.name == path.stem
        assert len(runs_of(loaded)) >= len(arms_of(loaded)) > 3
    page = (repository / "docs" / "how-to" / "ablation.md").read_text()
    (block,) = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)
    assert "el2n middle 50% of tokens within language by web" in {
        arm.label for arm in arms_of(parse_ablation(yaml.safe_load(block)))
    }


@pytest.mark.parametrize("text", ["name: [", "- a", None])
def test_a_file_that_is_no_recipe_is_refused(tmp_path, text):
    path = tmp_path / "r.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"r\.yaml"):
        load_ablation(path)
