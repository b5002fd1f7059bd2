"""Whole builds in this process: files and tables, splits, gate, registration, use by the score stage, second runs."""

import json
from fractions import Fraction

import pyarrow as pa
import pytest

from corpusmill.batches import rows_to_table
from corpusmill.errors import ConfigError, PermanentDataError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.shards import RunToken
from corpusmill.pruning.config import ScoringConfig
from corpusmill.pruning.corpus_split import CorpusSplit
from corpusmill.pruning.scoring import ScoreStage
from corpusmill.reference_model_recipe import parse_reference_model_recipe
from corpusmill.runner import chain as refresh_chain
from corpusmill.runner.model_registry import fetch_model, find_model
from corpusmill.runner.models import pin_model, with_model
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.reference_building import chain
from corpusmill.runner.reference_building.corpus import CorpusReader
from corpusmill.runner.reference_building.plan import plan_reference_model
from corpusmill.runner.reference_building.pool_check import check_score_model
from corpusmill.runner.reference_building.registration import ReferenceGateError
from corpusmill.runner.whole_crawl import commit_rows
from corpusmill.schema import MODELS

pytestmark = pytest.mark.slow
CRAWL = "MILL-DEMO-2024-10"


@pytest.fixture
def lake(home) -> Lakehouse:
    refresh_chain.initialise(["demo"])
    return open_lakehouse()


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    rows = [
        {"id": f"d{i}", "text": f"The old mill number {i} grinds the grain of the whole valley, and the river is wide."}
        for i in range(120)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(texts=None, **changes):
    values = {
        "name": "mill",
        "corpus": {"files": [str(texts)]},
        "tokenizer": {"n_vocab": 300},
        "model": "test",
        "training": {"epochs": 2, "batch_size": 4, "learning_rate": 4e-3, "warmup_steps": 2, "checkpoint_every": 5},
        "checkpoints": ["55%"],
        "validation": {"share": "1/5"},
    }
    return parse_reference_model_recipe(values | changes)


def build(made, run_id="run-1", said=None):
    return chain.build(made.model_dump(mode="json"), run_id, (said if said is not None else []).append)


def fill_corpus(lake, doc_ids, crawl=CRAWL, key="k1"):
    """Commits documents to ``demo.corpus`` as `publish` would."""
    table = lake.table("demo.corpus")
    rows = [
        {
            "crawl": crawl, "doc_id": doc_id, "url": "https://mill.example/", "language": "en",
            "text": f"Document {doc_id} tells of the mill, the river and the long way through the valley.",
            "n_chars": 70, "dedup_digest": doc_id, "warc_file": f"file-{i % 3}", "warc_offset": i, "warc_length": 1,
            "recipe_fingerprint": "f",
        }
        for i, doc_id in enumerate(doc_ids)
    ]  # fmt: skip
    token = RunToken("demo", crawl, f"run-{key}", 1, key, {})
    commit_rows(lake, "demo.corpus", {"crawl": crawl}, rows_to_table(rows, table.spec.schema), token)


def test_a_build_registers_every_model_with_its_facts_and_a_second_run_changes_nothing(lake, texts):
    made = build(recipe(texts, seeds=[3, 4]))
    names = [reference.removeprefix("registered:").split("@")[0] for reference in made["models"]]
    steps = [int(name.rpartition("step")[2]) for name in names]
    assert names == [f"mill.seed{s}.step{n}" for s, n in zip((3, 3, 4, 4), steps, strict=True)]
    assert made["new"] == 5
    model = find_model(lake, made["model"])
    data, quality = json.loads(model.training_data), json.loads(model.quality)
    assert list(data["files"]) == ["texts.jsonl"]
    assert (data["part"], data["documents"] + data["held_out_documents"]) == ("all", 120)
    assert [m["model"] for m in quality["members"]] == made["models"]
    folder = fetch_model(lake, model)
    record = json.loads((folder / "training.json").read_text())
    assert len(record["losses"]) == steps[1]
    assert record["flops"] == 6 * record["n_without_embeddings"] * record["tokens_seen"]
    assert record["tokens_seen"] == steps[1] * 4 * 64
    assert quality["training_flops"] == 2 * record["flops"]
    assert quality["loss_curve"][-1] == [steps[1], pytest.approx(record["losses"][-1], abs=1e-4)]
    assert (folder / "loss.svg").read_text().startswith("<svg")
    assert "6 N D" in (folder / "README.md").read_text()
    early = fetch_model(lake, find_model(lake, made["models"][0]))
    assert json.loads((early / "training.json").read_text())["losses"] == record["losses"][: steps[0]]
    before = lake.table("ops.models").snapshot_id()
    said = []
    again = build(recipe(texts, seeds=[3, 4]), "run-2", said)
    assert again == {**made, "new": 0}
    assert lake.table("ops.models").snapshot_id() == before
    assert not [line for line in said if "loss" in line and "step" in line]


def test_another_seed_joins_the_models_that_are_there(lake, texts):
    first = build(recipe(texts))
    said = []
    both = build(recipe(texts, seeds=[0, 1]), "run-2", said)
    assert both["models"][:2] == first["models"]
    assert both["model"] == first["model"]
    assert not [line for line in said if line.startswith("seed0 step")]
    assert {m["seed"] for m in json.loads(find_model(lake, both["model"]).quality)["members"]} == {0, 1}


def test_a_registered_model_scores_documents_and_names_its_version(lake, texts):
    made = build(recipe(texts))
    pinned = pin_model(made["model"])
    assert pinned.sha256 == made["sha256"]
    stage = ScoreStage(with_model(ScoringConfig(model=made["model"], device="cpu"), pinned))
    stage.setup()
    columns = {name: ["x", "x"] for name in ("crawl", "warc_file", "language")}
    seen = "The old mill number 7 grinds the grain of the whole valley, and the river is wide."
    strange = "Zyx qwv jkp bdf ghm, vvq xzz kkp wwq, jjx qqz pfw mmn bvc."
    rows = stage.process(pa.table({**columns, "doc_id": ["a", "b"], "text": [seen, strange]})).kept
    nll, n = (rows.column(name).to_numpy() for name in ("nll_sum", "n_bytes"))
    assert nll[0] / n[0] < 0.5 * nll[1] / n[1]
    with pytest.raises(ConfigError, match="must name one of the registered versions"):
        pin_model("registered:mill")


def test_a_model_below_its_gate_is_not_registered_and_a_changed_gate_trains_nothing(lake, texts):
    strict = recipe(texts, gate={"validation_perplexity": 1.01, "bits_per_byte": 0.01})
    with pytest.raises(ReferenceGateError, match=r"validation_perplexity of seed0 is .*, expected at most 1\.01; bits"):
        build(strict)
    assert lake.table("ops.models").count(None) == 0
    said = []
    assert build(recipe(texts, gate={"validation_perplexity": 1000}), "run-2", said)["new"] == 3
    assert not [line for line in said if line.startswith("seed0 step")]


def test_what_cannot_be_built_says_why_before_anything_is_trained(lake, texts, tmp_path):
    with pytest.raises(ConfigError, match=r"checkpoint '300%' is step \d+ .* beyond the \d+ steps of training"):
        build(recipe(texts, checkpoints=["300%"]))
    with pytest.raises(ConfigError, match="names no file"):
        build(recipe(tmp_path / "nothing.jsonl"))
    with pytest.raises(ConfigError, match=r"no rows of crawls=\['C'\]"):
        build(recipe(corpus={"table": "demo.corpus", "crawls": ["C"]}))
    (tmp_path / "short.jsonl").write_text(json.dumps({"text": "short"}) + "\n")
    with pytest.raises(PermanentDataError, match="less than one sequence of 64"):
        build(recipe(tmp_path / "short.jsonl"))
    (tmp_path / "bad.jsonl").write_text('{"text": "fine"}\n{"text": 3}\n')
    with pytest.raises(PermanentDataError, match=r"bad.jsonl document 2: TypeError"):
        build(recipe(tmp_path / "bad.jsonl"))


def test_another_models_tokenizer_and_a_shape_in_full_can_be_taken(lake, texts):
    shape = {"architecture": "gpt2", "hidden": 24, "layers": 2, "heads": 3, "feed_forward": 40, "context": 48}
    made = build(recipe(texts, tokenizer={"reuse": "bundled:reference_lm"}, model=shape))
    folder = fetch_model(lake, find_model(lake, made["model"]))
    config = json.loads((folder / "config.json").read_text())
    assert {k: config[k] for k in ("model_type", "n_embd", "n_layer", "n_head", "n_inner", "n_positions")} == {
        "model_type": "gpt2", "n_embd": 24, "n_layer": 2, "n_head": 3, "n_inner": 40, "n_positions": 48,
    }  # fmt: skip
    assert config["vocab_size"] == 2048
    from corpusmill.modeling.load import load_tokenizer

    ours, theirs = load_tokenizer(str(folder)), load_tokenizer("bundled:reference_lm")
    assert ours.encode_batch(["the mill"]) == theirs.encode_batch(["the mill"])
    assert ours.eod_id == theirs.eod_id == config["eos_token_id"]


def test_perplexity_is_trained_off_the_pool_memorization_on_it_and_later_crawls_keep_the_split(lake):
    ids = [f"{i:04d}" for i in range(400)]
    fill_corpus(lake, ids[:300])
    roles = {}
    for purpose in ("perplexity", "memorization"):
        corpus = {"table": "demo.corpus", "purpose": purpose, "split": {"share": "1/4", "seed": 5}}
        made = recipe(corpus=corpus)
        plan = plan_reference_model(lake, made, "run")
        reader = CorpusReader.of(lake, plan)
        roles[purpose] = {r: {d.doc_id for d in reader.documents(r)} for r in ("train", "validation")}
    split = CorpusSplit(Fraction(1, 4), 5)
    reserved = {i for i in ids[:300] if split.part_of(i) == "reserved"}
    held_out = roles["perplexity"]["validation"]
    assert held_out
    assert roles["perplexity"]["train"] == reserved - held_out
    assert roles["memorization"] == {"train": set(ids[:300]) - reserved, "validation": reserved}
    fill_corpus(lake, ids[300:], "MILL-DEMO-2024-33")
    later = {d.doc_id for d in CorpusReader.of(lake, plan_reference_model(lake, made, "r2")).documents("train")}
    assert not later & {i for i in ids if split.part_of(i) == "reserved"}
    old = {d.doc_id for d in CorpusReader.of(lake, plan).documents("train")}
    assert old == roles["memorization"]["train"], "a crawl that was published after the plan is not read"
    fill_corpus(lake, ids[:200], key="k2")
    with pytest.raises(PermanentDataError, match="changed after the build was planned"):
        list(CorpusReader.of(lake, plan).documents("train"))


def test_a_model_is_refused_for_the_pool_it_was_trained_on(lake):
    fill_corpus(lake, [f"{i:04d}" for i in range(300)])
    corpus = {"table": "demo.corpus", "split": {"share": "1/2"}}
    made = build(recipe(corpus=corpus))
    data = json.loads(find_model(lake, made["model"]).training_data)
    assert data["snapshot"] == lake.table("demo.corpus").snapshot_id()
    assert (data["crawls"], data["part"]) == ([CRAWL], "reserved")
    said = []
    check_score_model(lake, made["model"], CRAWL, ("perplexity",), warn=said.append)
    assert "trained on 1/2 of the documents" in said[0]
    check_score_model(
        lake, made["model"], CRAWL, ("perplexity",), warn=pytest.fail, pool_split=CorpusSplit(Fraction("1/2"))
    )
    check_score_model(lake, "bundled:reference_lm", CRAWL, ("perplexity",), warn=pytest.fail)
    with pytest.raises(ConfigError, match="cannot have memorized it"):
        check_score_model(lake, made["model"], CRAWL, ("memorization",), warn=said.append)
    assert set(MODELS.schema.names) >= {"training_data", "quality"}
