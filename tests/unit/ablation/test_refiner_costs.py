"""What refining costs in an ablation: counted for language models, unknown for a served one that nobody can size."""

import shutil

import pytest

from corpusmill.ablation import experiment
from corpusmill.ablation.arms import arms_of
from corpusmill.ablation.corpus import corpus_of
from corpusmill.ablation.pool import read_part
from corpusmill.ablation.scoring_pool import parameters_of
from corpusmill.pruning.reference_models import train_reference_model

PROMPT = {"max_new_tokens": 2, "max_prompt_tokens": 60, "max_error_fraction": 1.0}
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def silent(_line):
    pass


@pytest.fixture(scope="module")
def refiner(tmp_path_factory):
    """A language model that writes no program: every document stays, and its prompts were read."""
    folder = tmp_path_factory.mktemp("refiner")
    train_reference_model(["the old mill grinds the grain of the whole valley. " * 20], folder, "test", 2, n_vocab=320)
    return folder


@pytest.fixture
def facts(recipe, tmp_path):
    """Returns a function that gives what an arm of one stage keeps and costs."""

    def refine(**settings):
        pool = {"files": ["bundled:texts"], "max_documents": 6, "n_vocab": 400, "document_chars": 1000}
        steps = [{"refine_documents": {**PROMPT, **settings}}]
        values = recipe(pool=pool, corpora={"refined": steps}, references={}, scores=[], random=[], baseline=False)
        plan = experiment.load_plan(experiment.prepare(values, str(tmp_path / "out"), silent)["plan"])
        (arm,) = arms_of(plan.recipe)
        found = corpus_of(arm, plan.recipe.pool, 0, plan.pool, None, tmp_path / "cache.parquet", silent)
        return found.facts, len(read_part(plan.pool, "pool"))

    return refine


@pytest.mark.slow
def test_a_language_model_costs_two_operations_a_weight_and_token_of_its_prompts(facts, refiner):
    found, n_documents = facts(backend="transformers", model=str(refiner))
    assert found["kept_bytes"] == 1.0
    tokens = found["selecting_flops"] / 2 / parameters_of(refiner)
    assert tokens == int(tokens)
    assert n_documents < tokens <= 60 * n_documents


@pytest.mark.slow
def test_a_served_model_counts_where_its_config_is_at_hand_and_is_unknown_elsewhere(
    facts, refiner, completions_server, tmp_path
):
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    for name in TOKENIZER:
        shutil.copy(refiner / name, tokenizer)
    served = {"backend": "completions", "endpoint": completions_server("--model", refiner), "served_name": "test-model"}
    known, _ = facts(model=str(refiner), **served)
    assert known["selecting_flops"] > 0
    (tmp_path / "cache.json").unlink()
    unknown, _ = facts(model=str(tokenizer), **served)
    assert unknown["selecting_flops"] is None
    assert unknown["kept_bytes"] == known["kept_bytes"]
