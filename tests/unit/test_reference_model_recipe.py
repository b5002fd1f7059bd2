import pytest

from corpusmill.errors import ConfigError
from corpusmill.modeling.decoder_shapes import PRESETS
from corpusmill.reference_model_recipe import load_reference_model_recipe, parse_reference_model_recipe

LEAST = {"name": "m", "corpus": {"files": ["x.txt"]}, "training": {"steps": 3}}


def parse(**changes):
    return parse_reference_model_recipe(LEAST | changes)


def test_the_defaults_are_the_papers():
    recipe = parse()
    assert recipe.shape() == PRESETS["gpt-124m"]
    assert (recipe.tokenizer.n_vocab, recipe.shape().context) == (51_200, 2048)
    assert (recipe.training.batch_size, recipe.training.learning_rate) == (2048, 1.5e-4)
    assert recipe.training.schedule == "cosine"


def test_a_shape_without_a_name_is_given_in_full():
    shape = {"architecture": "gpt2", "hidden": 1600, "layers": 48, "heads": 25, "feed_forward": 6400}
    assert parse(model=shape).shape().context == 2048
    assert parse(model=shape).shape_facts()["preset"] is None
    with pytest.raises(ConfigError, match="heads=24 do not divide hidden=1600"):
        parse(model={**shape, "heads": 24})
    with pytest.raises(ConfigError, match="preset 'gpt-1b' is unknown; expected one of"):
        parse(model="gpt-1b")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training": {}}, "exactly one of steps and epochs"),
        ({"training": {"steps": 1, "epochs": 1}}, "exactly one of steps and epochs"),
        ({"corpus": {}}, "exactly one of table and files is needed; given: none"),
        ({"corpus": {"files": ["x"], "table": "a.b"}}, "exactly one of table and files"),
        ({"corpus": {"files": ["x"], "crawls": ["c"]}}, "crawls are those of a table"),
        ({"corpus": {"table": "a.b", "purpose": "memorization"}}, "so it needs a split"),
        ({"corpus": {"table": "a.b", "split": {"share": "3/2"}}}, r"'3/2' lies outside \(0, 1\)"),
        ({"corpus": {"table": "a.b", "split": {"share": "x"}}}, "'x' is not a share"),
        ({"checkpoints": ["half"]}, "'half' is neither a step above 0 nor a share"),
        ({"checkpoints": [0]}, "0 is neither a step above 0 nor a share"),
        ({"seeds": [1, 1]}, "must differ"),
        ({"seeds": []}, "seeds"),
        ({"name": "Wiki"}, "a reference model's name"),
        ({"tokenizer": {"n_vocab": 100}}, "tokenizer.n_vocab=100"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_a_wrong_value_is_named(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse(**changes)


def test_shares_are_exact_and_checkpoints_keep_their_words():
    recipe = parse(corpus={"table": "a.b", "split": {"share": 0.1}}, checkpoints=["14%", 250, "55%"])
    assert recipe.corpus.split.share == "1/10"
    assert recipe.checkpoints == ("14%", 250, "55%")
    assert parse_reference_model_recipe(recipe.model_dump(mode="json")) == recipe


def test_files_are_meant_relative_to_the_recipe(tmp_path, monkeypatch):
    monkeypatch.setenv("MILL_TEXTS", "/somewhere")
    path = tmp_path / "m.yaml"
    path.write_text("name: m\ncorpus: {files: [a.txt, '$MILL_TEXTS/b.txt', 'bundled:c.txt']}\ntraining: {steps: 1}\n")
    assert load_reference_model_recipe(path).corpus.files == (
        str(tmp_path / "a.txt"), "/somewhere/b.txt", "bundled:c.txt",
    )  # fmt: skip
    with pytest.raises(ConfigError, match="does not exist; recipes beside it: m"):
        load_reference_model_recipe(tmp_path / "n.yaml")
    path.write_text("- a list")
    with pytest.raises(ConfigError, match="holds list, expected a mapping"):
        load_reference_model_recipe(path)
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="is not YAML"):
        load_reference_model_recipe(path)
