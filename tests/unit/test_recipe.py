"""Recipes: what is accepted, what is refused and how it is said."""

from pathlib import Path

import pytest

from corpusmill.errors import ConfigError
from corpusmill.recipe import load_recipe, parse_recipe


def test_every_bundled_recipe_loads(repository: Path):
    for path in (repository / "dags" / "recipes").glob("*.yaml"):
        assert load_recipe(path).name == path.stem


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"name": "Bad Name"}, "name='Bad Name'"),
        ({"name": "raw"}, "name='raw'"),
        ({"name": "x", "scores": {}}, "scores="),
        ({"name": "x", "shards": {"max_shards": 0}}, r"shards\.max_shards=0"),
        ({"name": "x", "select": {"column": "el2n"}}, "no 'score' stage"),
    ],
)
def test_a_wrong_recipe_names_the_field_and_its_value(values, message):
    with pytest.raises(ConfigError, match=message):
        parse_recipe(values)


def test_an_absent_file_names_the_recipes_beside_it(tmp_path: Path):
    (tmp_path / "there.yaml").write_text("name: there")
    with pytest.raises(ConfigError, match="there"):
        load_recipe(tmp_path / "absent.yaml")


def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path):
    path = tmp_path / "list.yaml"
    path.write_text("- a\n- b")
    with pytest.raises(ConfigError, match="list"):
        load_recipe(path)
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="not YAML"):
        load_recipe(path)


def test_source_schedule_and_shards_do_not_change_the_method():
    one = parse_recipe({"name": "x"})
    two = parse_recipe({"name": "x", "shards": {"max_shards": 7}, "source": {"base": "/elsewhere"}})
    other = parse_recipe({"name": "x", "rules": {"preset": "c4"}})
    assert one.method_fingerprint() == two.method_fingerprint()
    assert one.method_fingerprint() != other.method_fingerprint()
