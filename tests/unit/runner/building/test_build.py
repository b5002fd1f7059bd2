"""A whole build in this process: extractor as teacher, pages with labels, the gate, registration, a second run."""

import json

import pytest

from corpusmill.errors import ConfigError, ModelError, PermanentDataError, WorkerDiedError
from corpusmill.prox.config import ChunkRefinementConfig
from corpusmill.prox.program_model_folder import chunk_config, read_record
from corpusmill.prox.refiner import load_chunk_refiner
from corpusmill.prox.training_examples import ChunkExample, DocumentExample, Provenance
from corpusmill.refiner_recipe import load_refiner_recipe, parse_refiner_recipe
from corpusmill.runner import chain as refresh_chain
from corpusmill.runner.building import chain
from corpusmill.runner.building.examples import _example, _example_columns, examples_of
from corpusmill.runner.building.plan import load_build
from corpusmill.runner.building.training import GateFailedError
from corpusmill.runner.child import ChildJob
from corpusmill.runner.model_registry import fetch_model, find_model
from corpusmill.runner.models import pin_model, with_model
from corpusmill.runner.open_lakehouse import open_lakehouse

pytestmark = pytest.mark.slow


@pytest.fixture
def lake(home):
    refresh_chain.initialise(["demo"])
    return open_lakehouse()


@pytest.fixture
def pages(tmp_path):
    """Pages whose short lines go: a rule that a labeller learns in a few steps."""
    path = tmp_path / "pages.jsonl"
    rows = []
    for i in range(60):
        article = [f"This is sentence {k} of article {i}, and it is a long one that ends well." for k in range(4)]
        lines = ["Home", "Login", *article, "Share", f"Copyright {i}"]
        rows.append({"doc_id": f"p{i}", "domain": f"site{i}.org", "lines": lines, "remove": [0, 1, 6, 7]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(pages, **changes):
    values = {
        "name": "short_lines",
        "seed": {"files": [str(pages)], "min_characters": 1, "max_shards": 2},
        "labels": {"route": "gold", "validation_share": 0.25},
        "train": {"kind": "labeller", "steps": 30},
        "gate": {"keep_f1": 0.9},
    }
    return parse_refiner_recipe(values | changes).model_dump(mode="json")


def tables(lake):
    names = ("ops.seed_documents", "ops.refiner_examples", "ops.models")
    return {name: lake.table(name).snapshot_id() for name in names}


def test_a_build_registers_a_refiner_that_a_recipe_can_use_and_a_second_run_changes_nothing(lake, pages):
    made = chain.build(recipe(pages), "run-1")
    assert made["new"]
    assert made["keep_f1"] >= 0.9
    pinned = pin_model(made["model"])
    config = with_model(ChunkRefinementConfig(backend="labeller", model=made["model"]), pinned)
    refiner = load_chunk_refiner(config)
    text = "Home\nThis is a sentence of no article, but a long one that ends well.\nShare"
    output = refiner.write_programs(refiner.split(text))[0].output
    assert "start=0, end=0" in output
    row = next(r for r in lake.table("ops.models").scan(None).to_pylist() if r["name"] == "short_lines")
    trained_on = json.loads(row["training_data"])
    assert trained_on["table"] == "ops.refiner_examples"
    assert trained_on["snapshot"] == lake.table("ops.refiner_examples").snapshot_id()
    assert json.loads(row["quality"])["keep_f1"] == made["keep_f1"]
    before = tables(lake)
    again = chain.build(recipe(pages), "run-2")
    assert tables(lake) == before
    assert again == {**made, "new": False}


def test_a_refiner_below_its_gate_is_not_registered_and_the_message_names_the_figure(lake, pages):
    with pytest.raises(GateFailedError, match=r"keep_f1 is .*, expected at least 1\.1; nonsense was not measured"):
        chain.build(recipe(pages, gate={"keep_f1": 1.1, "nonsense": 0.5}), "run-1")
    assert lake.table("ops.models").count(None) == 0


def test_what_a_recipe_measures_on_and_starts_from_is_looked_at_before_anything_is_labelled(lake, pages, tmp_path):
    absent = recipe(pages, evaluate=str(tmp_path / "absent.jsonl"))
    with pytest.raises(ConfigError, match=r"absent\.jsonl' is no file"):
        chain.sample(absent, "run-1")
    (tmp_path / "base").mkdir()
    (tmp_path / "r.yaml").write_text(
        "{name: r, seed: {files: [pages.jsonl], min_characters: 1}, labels: {route: gold}, "
        "train: {kind: program-model, base: ./base, steps: 1}}"
    )
    built = load_refiner_recipe(tmp_path / "r.yaml").model_dump(mode="json")
    assert built["train"]["base"] == str(tmp_path / "base")
    (tmp_path / "base" / "config.json").write_text("{}")
    first = chain.sample(built, "run-1")["build"]
    assert chain.sample(built, "run-2")["build"] == first
    (tmp_path / "base" / "config.json").write_text("{ }")
    assert chain.sample(built, "run-3")["build"] != first, "another base is another build"
    (tmp_path / "base" / "config.json").unlink()
    (tmp_path / "base").rmdir()
    with pytest.raises(ModelError, match="does not exist"):
        chain.sample(built, "run-4")


def test_a_build_without_examples_says_what_was_refused(lake, tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text("".join(json.dumps({"doc_id": str(i), "text": f"plain {i}"}) + "\n" for i in range(3)))
    with pytest.raises(PermanentDataError, match=r"Refused: \{'no_gold': 3\}"):
        chain.build(recipe(path), "run-1")


def test_the_bundled_recipes_are_valid_and_the_demo_one_learns_from_html(lake, repository, monkeypatch):
    monkeypatch.setenv("CORPUSMILL_MATH_SEED", "/somewhere/*.jsonl")
    general, math, demo = (
        load_refiner_recipe(repository / f"dags/refiners/{name}.yaml") for name in ("general", "math", "demo")
    )
    assert math.seed.files == ("/somewhere/*.jsonl",)
    differing = {field for field in type(general).model_fields if getattr(general, field) != getattr(math, field)}
    assert differing == {"name", "description", "seed", "labels"}
    assert general.train == math.train
    values = demo.model_dump(mode="json")
    values["seed"]["n_documents"] = 60
    values["train"]["steps"] = 10
    values["gate"] = {}
    made = chain.build(values, "run-1")
    assert made["keep_f1"] > 0
    routes = set(lake.table("ops.refiner_examples").scan(None, columns=["route"])["route"].to_pylist())
    assert routes == {"extractor"}


def test_examples_come_back_from_the_table_as_they_were():
    provenance = Provenance(route="rewrite", teacher="t", source="s", details={"n": 1, "tier": "human"})
    chunk = ChunkExample(
        doc_id="d", first_line=7, lines=("a", "", "b"), program="remove_lines(start=7, end=7)", unsure=(9,),
        domain="x.org", provenance=provenance,
    )  # fmt: skip
    document = DocumentExample(doc_id="e", text="two\nlines", decision="drop", provenance=provenance)
    for example in (chunk, document):
        assert _example(_example_columns(example)) == example


def test_examples_of_a_build_are_split_by_domain(lake, pages):
    sampled = chain.sample(recipe(pages), "run-1")
    chain.synthesise(sampled["plan"])
    plan = load_build(lake, sampled["plan"])
    train, validation = ({e.domain for e in examples_of(lake, plan, split)} for split in ("train", "validation"))
    assert train
    assert validation
    assert not train & validation


def test_a_model_whose_files_changed_is_not_registered(lake, pages):
    sampled = chain.sample(recipe(pages), "run-1")
    plan = sampled["plan"]
    chain.synthesise(plan)
    stored = chain.train(plan)
    place = lake.io.parse_location(stored["location"])[2]
    with open(f"{place}/config.json", "a") as file:
        file.write(" ")
    with pytest.raises(Exception, match="does not have the sha256"):
        chain.evaluate(plan)


def test_a_program_model_whose_training_is_killed_goes_on_and_runs_as_it_was_trained(lake, pages):
    train = {"kind": "program-model", "base": "new:test", "steps": 12}
    plan = chain.sample(recipe(pages, train=train, gate={}), "run-1")["plan"]
    chain.synthesise(plan)
    child = ChildJob(f"{chain.__name__}:train", {"plan": plan})

    def kill_behind_the_first_checkpoint(line):
        if line.startswith("step 4:"):
            child.kill()

    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        child.run(kill_behind_the_first_checkpoint)
    lines = []
    stored = chain.train(plan, lines.append)
    assert any(line.endswith("going on from a checkpoint") for line in lines)
    assert not any(line.startswith("step 2:") for line in lines), "nothing is trained twice"
    assert chain.train(plan)["skipped"]
    measured = chain.evaluate(plan)
    made = chain.register(plan)
    assert (made["kind"], made["sha256"], made["new"]) == ("program-model", stored["sha256"], True)
    folder = fetch_model(lake, find_model(lake, made["model"]))
    assert read_record(folder)["inference"]["prompt_ids"] == "sft"
    examples = examples_of(lake, load_build(lake, plan), "validation")
    assert measured["n_pages"] == len(examples)
    pinned = with_model(ChunkRefinementConfig(model=made["model"], device="cpu"), pin_model(made["model"]))
    as_named, as_trained = load_chunk_refiner(pinned), load_chunk_refiner(chunk_config(folder, device="cpu"))
    text = "\n".join(examples[0].lines)
    assert as_named.write_programs(as_named.split(text)) == as_trained.write_programs(as_trained.split(text))


def test_a_recipe_that_cannot_be_is_refused():
    with pytest.raises(ConfigError, match="needs a teacher"):
        recipe("x", labels={"route": "rewrite"})
    teacher = {"endpoint": "http://h/v1", "model": "m"}
    with pytest.raises(ConfigError, match="use 'program-model'"):
        recipe("x", labels={"route": "scores", "teacher": teacher})
    with pytest.raises(ConfigError, match="exactly one of minutes and steps"):
        recipe("x", train={"kind": "labeller"})
