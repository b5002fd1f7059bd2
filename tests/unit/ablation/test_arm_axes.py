"""Axes of arms by score: excess loss, top-k hits, strata, weights: by configuration, each with a result of its own."""

import json

import pyarrow.parquet as pq
import pytest

from corpusmill.ablation import experiment
from corpusmill.ablation.arms import arms_of, reference_key, run_key, runs_of, score_key
from corpusmill.ablation.config import parse_ablation
from corpusmill.ablation.corpus import corpus_of
from corpusmill.ablation.pool import read_units
from corpusmill.errors import ConfigError

LANGUAGES = ("en", "de", "de", "de")
TRAINED = {"preset": "test", "steps": 4, "n_vocab": 400, "batch_size": 4}


def silent(_line):
    pass


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Documents of two languages and two domains: three in four are German and on one site."""
    path = tmp_path_factory.mktemp("pages") / "pages.jsonl"
    rows = []
    for i in range(40):
        language = LANGUAGES[i % 4]
        word = {"en": "mill", "de": "Mühle"}[language]
        text = " ".join(f"{word} {i} {j * i % 7} water wheel" for j in range(20 + i % 3 * 10))
        site = "a" if language == "de" else "b"
        rows.append({"doc_id": f"d{i}", "text": text, "language": language, "url": f"https://www.mill-{site}.org/{i}"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe_of(pages, **changes):
    values = {
        "name": "axes",
        "pool": {"files": [str(pages)], "unit": "document", "n_vocab": 400, "reference_share": 0.4},
        "references": {"crawl": TRAINED},
        "scores": [{"references": ["crawl"], "which": ["bottom"]}],
        "measures": {"minimal_pairs": []},
    }
    return parse_ablation({**values, **changes}).model_dump(mode="json")


@pytest.fixture(scope="module")
def scored(pages, tmp_path_factory):
    """A plan with one scored pool and arms of every stratum and weight."""
    arms = {
        "references": ["crawl"], "columns": ["bits_per_byte", "top_k_hit_rate"], "which": ["bottom"],
        "strata": [[], ["language"], ["language", "domain"]], "weights": ["rows", "n_tokens"],
    }  # fmt: skip
    made = experiment.prepare(recipe_of(pages, scores=[arms]), str(tmp_path_factory.mktemp("out")), silent)
    experiment.score(made["plan"], "crawl", silent)
    return experiment.load_plan(made["plan"])


def kept(plan, label, tmp_path):
    arm = {run.arm.label: run.arm for run in runs_of(plan.recipe)}[label]
    corpus = corpus_of(arm, plan.recipe.pool, 0, plan.pool, plan.scores("crawl"), tmp_path / "c.parquet", silent)
    texts = set(corpus.texts)
    return [unit for unit in read_units(plan.pool) if unit.text in texts]


def test_labels_name_strata_and_weights_and_are_unique(scored):
    labels = [arm.label for arm in arms_of(scored.recipe) if arm.column == "top_k_hit_rate"]
    assert labels == [
        "top_k_hit_rate bottom 50% by crawl",
        "top_k_hit_rate bottom 50% of tokens by crawl",
        "top_k_hit_rate bottom 50% within language by crawl",
        "top_k_hit_rate bottom 50% of tokens within language by crawl",
        "top_k_hit_rate bottom 50% within language and domain by crawl",
        "top_k_hit_rate bottom 50% of tokens within language and domain by crawl",
    ]
    keys = {run_key(scored.recipe, "pool", run, {}) for run in runs_of(scored.recipe)}
    assert len(keys) == len(runs_of(scored.recipe))


def test_the_share_holds_within_each_language(scored, tmp_path):
    units = read_units(scored.pool)
    assert {unit.language for unit in units} == {"en", "de"}
    assert {unit.domain for unit in units} == {"mill-a.org", "mill-b.org"}
    chosen = kept(scored, "bits_per_byte bottom 50% within language by crawl", tmp_path)
    for language in ("en", "de"):
        n = sum(unit.language == language for unit in units)
        assert sum(unit.language == language for unit in chosen) == (n + 1) // 2


def test_half_of_the_tokens_are_not_half_of_the_documents(scored, tmp_path):
    tokens = dict(zip(*pq.read_table(scored.scores("crawl"), columns=["unit_id", "n_tokens"]).to_pydict().values(),
                      strict=True))  # fmt: skip
    chosen = kept(scored, "bits_per_byte bottom 50% of tokens by crawl", tmp_path)
    off = abs(sum(tokens[unit.unit_id] for unit in chosen) - sum(tokens.values()) / 2)
    assert off <= max(tokens.values()) / 2
    by_rows = kept(scored, "bits_per_byte bottom 50% by crawl", tmp_path)
    assert {unit.unit_id for unit in chosen} != {unit.unit_id for unit in by_rows}


def test_top_k_hits_are_scored_where_an_arm_needs_them(scored, pages, tmp_path):
    table = pq.read_table(scored.scores("crawl"))
    assert table["top_k_hits"].null_count == 0
    assert table["excess_nll_sum"].null_count == table.num_rows
    plain = experiment.load_plan(experiment.prepare(recipe_of(pages), str(tmp_path), silent)["plan"])
    assert plain.scores("crawl").name != scored.scores("crawl").name


def test_excess_loss_is_the_difference_of_two_references_with_one_tokenizer(pages, tmp_path):
    text = tmp_path / "clean.jsonl"
    text.write_text("".join(json.dumps({"text": f"the mill wheel turns {i} " * 30}) + "\n" for i in range(30)))
    references = {
        "clean": {**TRAINED, "corpus": "clean", "tokenizer": "pool", "baseline": "crawl"},
        "crawl": {**TRAINED, "tokenizer": "pool"},
    }
    pool = {"files": [str(pages)], "clean_files": [str(text)], "unit": "document", "n_vocab": 400}
    arms = [
        {"references": ["clean"], "columns": ["excess_nll"], "which": ["bottom"]},
        {"references": ["crawl"], "columns": ["perplexity"], "which": ["bottom"]},
    ]
    values = recipe_of(pages, pool=pool, references=references, scores=arms)
    plan = experiment.prepare(values, str(tmp_path / "out"), silent)["plan"]
    costs = {name: experiment.score(plan, name, silent) for name in ("clean", "crawl")}
    loaded = experiment.load_plan(plan)
    clean, crawl = (pq.read_table(loaded.scores(name)).to_pydict() for name in ("clean", "crawl"))
    expected = [a - b for a, b in zip(clean["nll_sum"], crawl["nll_sum"], strict=True)]
    assert clean["excess_nll_sum"] == pytest.approx(expected, abs=1e-3)
    assert crawl["excess_nll_sum"] == [None] * len(expected)
    assert costs["clean"]["scoring_flops"] == pytest.approx(2 * costs["crawl"]["scoring_flops"])
    assert costs["clean"]["training_flops"] == pytest.approx(2 * costs["crawl"]["training_flops"])
    assert experiment.run_arm(plan, "excess_nll bottom 50% by clean | trigram | seed 0", silent)["crawl_nll"] > 0


def test_how_a_reference_scores_decides_its_scores_and_not_its_training(pages):
    def keys(**changes):
        arms = [{"references": ["crawl"], "columns": ["excess_nll"]}]
        references = {"crawl": {**TRAINED, "baseline": "other"}, "other": {**TRAINED, "steps": 5}, "third": TRAINED}
        references["crawl"] |= changes
        recipe = parse_ablation(recipe_of(pages, references=references, scores=arms))
        return reference_key(recipe, "pool", "crawl"), score_key(recipe, "pool", "crawl")

    base = keys()
    for changes in ({"top_k": 3}, {"baseline": "third"}, {"mem_tokens": 8}):
        training, scores = keys(**changes)
        assert training == base[0]
        assert scores != base[1]


@pytest.mark.parametrize(
    ("references", "columns", "message"),
    [
        ({"crawl": TRAINED}, ["excess_nll"], r"excess_nll by references \['crawl'\]: they name no baseline"),
        ({"crawl": {**TRAINED, "baseline": "nobody"}}, ["el2n"], "baseline='nobody': expected another reference"),
        ({"crawl": {**TRAINED, "baseline": "crawl"}}, ["el2n"], "baseline='crawl': expected another reference"),
        (
            {"crawl": {**TRAINED, "baseline": "o"}, "o": {**TRAINED, "seeds": [0, 1]}},
            ["el2n"], "has 1 seeds and its baseline 'o' 2",
        ),
        (
            {"crawl": {**TRAINED, "baseline": "o"}, "o": {**TRAINED, "corpus": "clean"}},
            ["excess_nll"], "'o' would be trained with a tokenizer each.*give both tokenizer: pool",
        ),
        (
            {"crawl": {**TRAINED, "baseline": "o"}, "o": {**TRAINED, "n_vocab": 500}},
            ["excess_nll"], "'o' would be trained with a tokenizer each",
        ),
        (
            {"crawl": {**TRAINED, "baseline": "o"}, "o": {**TRAINED, "tokenizer": "pool"}},
            ["excess_nll"], "'o' would be trained with a tokenizer each",
        ),
    ],
)  # fmt: skip
def test_a_baseline_that_makes_no_sense_is_refused(pages, references, columns, message):
    with pytest.raises(ConfigError, match=message):
        recipe_of(pages, references=references, scores=[{"references": ["crawl"], "columns": columns}])


def test_a_stratum_that_no_document_has_is_refused_before_anything_is_trained(recipe, tmp_path):
    arms = [{"references": ["clean"], "strata": [["language", "domain"]]}]
    with pytest.raises(ConfigError, match="strata name 'domain', but no document of the pool has one"):
        experiment.prepare(recipe(scores=arms), str(tmp_path), silent)
    assert not (tmp_path / "references").exists()


def test_a_passage_has_the_language_that_most_of_its_bytes_are_in():
    from corpusmill.ablation.config import PoolConfig
    from corpusmill.ablation.noise import Document
    from corpusmill.ablation.pool import units_of

    documents = [
        Document("a", "word " * 10, language="en", domain="a.example"),
        Document("b", "Wort " * 40, language="de"),
    ]
    units = units_of(documents, PoolConfig(files=("x",), passage_bytes=100))
    assert [(unit.language, unit.domain) for unit in units[:2]] == [("en", "a.example"), ("de", None)]


def test_a_student_may_have_a_shape_of_its_own(recipe, tmp_path):
    shape = {"architecture": "llama", "hidden": 16, "layers": 2, "heads": 2, "feed_forward": 32, "context": 32}
    student = {"kind": "gpt", "preset": shape, "steps": 2, "batch_size": 2, "evaluate_every": 1}
    values = recipe(students={"flat": student}, references={}, scores=[], random=[])
    plan = experiment.prepare(values, str(tmp_path), silent)["plan"]
    experiment.run_arm(plan, "no pruning | flat | seed 0", silent)
    result = experiment.load_plan(plan).result(runs_of(experiment.load_plan(plan).recipe)[0])
    assert result["n_parameters"] == 16 * 400 + 2 * (4 * 16 * 16 + 3 * 16 * 32 + 2 * 16) + 16
    assert result["tokens_seen"] == 2 * 2 * 32
