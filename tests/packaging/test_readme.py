"""What README.md says exists: operators, recipe, commands, make targets and files."""

import argparse
import re
from pathlib import Path

import yaml

from corpusmill.cli import _parser
from corpusmill.recipe import load_recipe, parse_recipe

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text()
MAKEFILE = (REPOSITORY / "Makefile").read_text()


def code():
    """The code of the page: fenced blocks line by line, and inline code."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", README, re.M | re.S)
    outside = re.sub(r"^```\w*\n.*?^```", "", README, flags=re.M | re.S)
    return [line for block in fenced for line in block.splitlines()] + re.findall(r"`([^`]+)`", outside)


def commands():
    (action,) = [action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return action.choices


def options(parser):
    return {option for action in parser._actions for option in action.option_strings}


def test_the_stage_table_names_the_exported_operators():
    import corpusmill_operators

    stages = set(corpusmill_operators.__all__)
    stages = {name for name in stages if name.endswith("Operator")} - {"CommitStageOperator"}  # part of map stages
    table = re.findall(r"^\| (\w+) \| `(\w+Operator)` \|", README, re.M)
    assert {operator for _, operator in table} == stages
    assert len(table) == len(stages)


def test_recipes_on_the_page_are_valid():
    blocks = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", README, re.M | re.S)]
    recipes = [block for block in blocks if "name" in block]
    assert recipes
    for values in recipes:
        assert parse_recipe(values).name == values["name"]


def test_every_command_and_option_on_the_page_exists():
    named = [found for text in code() for found in re.findall(r"\bcorpusmill ([a-z][a-z-]*)\b([^`#]*)", text)]
    assert named
    for command, rest in named:
        assert command in commands(), command
        unknown = set(re.findall(r"--[a-z][a-z-]*", rest)) - options(commands()[command])
        assert unknown == set(), f"corpusmill {command}"


def test_the_command_table_names_every_command():
    rows = "".join(re.findall(r"^\| `corpusmill .*$", README, re.M))
    assert [name for name in commands() if not re.search(rf"[` ]{name}[` ]", rows)] == []


def test_every_make_target_on_the_page_exists():
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    named = {target for text in code() for target in re.findall(r"\bmake ([a-z-]+)", text)}
    assert {"demo", "up", "test"} <= named
    assert named - targets == set()


def test_relative_links_lead_to_files():
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", README)
    relative = [link for link in links if "://" not in link]
    assert relative
    assert [link for link in relative if not (REPOSITORY / link).exists()] == []


def test_files_named_on_the_page_exist():
    named = {
        text for text in code() if re.fullmatch(r"(?:dags|tests|docs|src|operators|docker|benchmarks)/[\w./-]+", text)
    }
    assert "dags/recipes/demo.yaml" in named
    assert [name for name in sorted(named) if not (REPOSITORY / name).exists()] == []
    assert load_recipe(REPOSITORY / "dags" / "recipes" / "demo.yaml").name == "demo"


def test_folders_of_the_tree_exist():
    (tree,) = re.findall(r"^## The tree\n+```\w*\n(.*?)^```", README, re.M | re.S)
    parent, missing = REPOSITORY, []
    for line in tree.splitlines():
        named = re.match(r"( *)((?:[\w.-]+/+ ?)+(?:[\w-]+/ ?)*)", line)
        folder = REPOSITORY if not named[1] else parent
        names = named[2].split()
        missing += [f"{folder.name}/{name}" for name in names if not (folder / name).is_dir()]
        parent = parent if named[1] else REPOSITORY / names[0]
    assert missing == []
