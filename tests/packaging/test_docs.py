"""The how-to pages: what they link to and name is there, and their commands parse."""

import argparse
import re
from pathlib import Path

import pytest
import yaml

from corpusmill.cli import _parser
from corpusmill.errors import ConfigError
from corpusmill.recipe import Recipe, parse_recipe

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted((REPOSITORY / "docs").rglob("*.md"))
WRITTEN = [page for page in PAGES if page.parent.name != "reference"]
FOLDERS = ("src/", "operators/", "dags/", "plugins/", "tests/", "benchmarks/", "docker/", "docs/")


def name(page):
    return str(page.relative_to(REPOSITORY))


def commands():
    (action,) = [action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return action.choices


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_links_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_files_that_are_named_exist(page):
    named = re.findall(r"`([\w./-]+)`", page.read_text())
    paths = [path for path in named if path.startswith(FOLDERS) and not path.endswith("-")]
    there = [path for path in paths if any((REPOSITORY / f"{path}{end}").exists() for end in ("", ".example"))]
    assert there == paths


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_commands_and_options_exist(page):
    text = page.read_text().replace("\\\n", " ")
    blocks = re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()] + re.findall(r"`(corpusmill [^`]+)`", text)
    for line in lines:
        for command, rest in re.findall(r"\bcorpusmill ([a-z][a-z-]+)\b([^|;&#]*)", line):
            assert command in commands(), line
            known = {option for action in commands()[command]._actions for option in action.option_strings}
            assert set(re.findall(r"(?<!\S)\[?(--[a-z][a-z-]*)", rest)) <= known, line


@pytest.mark.parametrize("page", WRITTEN, ids=name)
def test_yaml_on_the_page_is_yaml_and_recipes_are_recipes(page):
    for block in re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.M | re.S):
        values = yaml.safe_load(block)
        assert values is not None
        known = isinstance(values, dict) and values.keys() <= Recipe.model_fields.keys()
        if known and "name" in values:
            parse_recipe(values)
        elif known:
            assert faults(values) == []


def faults(part):
    """Returns what is wrong with some entries of a recipe, but for what a whole recipe would have besides."""
    try:
        Recipe.load({"name": "page", **part})
    except ConfigError as error:
        return [line for line in str(error).splitlines()[1:] if not line.endswith("Field required")]
    return []
