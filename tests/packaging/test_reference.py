"""The reference pages are those that the code makes, and no reason of the source is missing from them."""

import ast
import re
from pathlib import Path

import pytest

from corpusmill.ablation.config import AblationRecipe
from corpusmill.prox import program_execution
from corpusmill.prox.refiner import TOO_LONG_PROMPT
from corpusmill.recipe import Recipe
from corpusmill.reference import reasons
from corpusmill.reference.__main__ import PAGES, main
from corpusmill.reference.settings import inner_classes, setting_classes
from corpusmill.reference.synthesis_reasons import SYNTHESIS
from corpusmill.reference.tables import TABLES, all_tables
from corpusmill.reference_model_recipe import ReferenceModelRecipe
from corpusmill.refiner_recipe import RefinerRecipe
from corpusmill.rules.config import RulesConfig
from corpusmill.rules.decision import LANGUAGE_REASONS
from corpusmill.rules.stage import CleanStage

REPOSITORY = Path(__file__).resolve().parents[2]
REFERENCE = REPOSITORY / "docs" / "reference"
REASON = re.compile(r"(?:ingest|deduplicate|pack|score|select|error|language|url)\.[a-z][a-z0-9_]*")


def literal_reasons():
    """Every string of the source that is a reason, written as a whole."""
    found = set()
    for folder in (REPOSITORY / "src" / "corpusmill", REPOSITORY / "operators"):
        for path in folder.rglob("*.py"):
            if "reference" in path.relative_to(folder).parts:
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and REASON.fullmatch(node.value):
                    found.add(node.value)
    return found


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_pages_are_those_that_the_code_makes(name):
    assert (REFERENCE / name).read_text() == PAGES[name](), "run: make reference"


def test_the_command_writes_the_pages(tmp_path):
    assert main([str(tmp_path / "new")]) == 0
    assert {path.name for path in (tmp_path / "new").iterdir()} == set(PAGES)


def test_every_reason_that_the_source_writes_is_listed_and_no_other():
    lists = (
        reasons.QUARANTINED,
        reasons.COUNTED,
        reasons.DEDUPLICATED,
        reasons.PACKED,
        reasons.SCORED,
        reasons.SELECTED,
    )
    listed = {name for sentences in (*lists, reasons.ERRORS, reasons.LANGUAGE) for name in sentences}
    listed |= {name for name in reasons.RULES if name.startswith("url.")}
    made_of_parts = {*reasons.RECORD_KINDS, *reasons.RULE_SET_ERRORS, "error.<exception>"}
    assert made_of_parts <= listed
    assert literal_reasons() == listed - made_of_parts


def test_errors_of_rules_are_listed_for_every_rule_set():
    stage = CleanStage(RulesConfig())
    stage.setup()
    guarded = {"url", "language", "pii", *stage._measurers}
    assert {f"error.{name}" for name in guarded} == set(reasons.RULE_SET_ERRORS)
    assert {reason.partition(".")[0] for reason in reasons.all_rules()} <= guarded


def test_every_rule_of_every_preset_has_a_sentence_and_stands_on_the_page():
    assert set(reasons.RULES) == set(reasons.all_rules())
    assert set(reasons.LANGUAGE) == set(LANGUAGE_REASONS)
    page = reasons.reasons_page()
    for rule in reasons.all_rules().values():
        (line,) = [line for line in page.splitlines() if line.startswith(f"| `{rule.reason}` |")]
        assert f"`{rule.measure}`" in line
        assert f"| {rule.drop} {rule.threshold:g} |" in line
        assert rule.source in line


def test_every_code_of_the_executor_is_listed():
    codes = {value for name, value in vars(program_execution).items() if name.isupper() and isinstance(value, str)}
    assert codes | {TOO_LONG_PROMPT} == set(reasons.CHUNK_CODES) | set(reasons.DOCUMENT_CODES)


def test_every_table_and_column_stands_on_the_page():
    assert set(TABLES) == set(all_tables())
    sections = dict(re.findall(r"^## `(\S+)`\n(.*?)(?=^## |\Z)", (REFERENCE / "tables.md").read_text(), re.M | re.S))
    assert list(sections) == list(all_tables())
    for name, spec in all_tables().items():
        assert re.findall(r"^\| `(\w+)` \|", sections[name], re.M) == spec.schema.names


def test_every_refusal_of_synthesis_is_listed_and_no_other():
    written = set()
    for path in (REPOSITORY / "src/corpusmill/prox").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            refuses = isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("Reject", "RejectedError")
            names_it = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "reason"
            if refuses or (names_it and path.name == "teacher_answers.py"):
                given = node.args if isinstance(node, ast.Call) else [node.value]
                flat = [p for a in given for p in ((a.body, a.orelse) if isinstance(a, ast.IfExp) else (a,))]
                texts = [a.value for a in flat if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                written |= {text for text in texts if re.fullmatch("[a-z]+(_[a-z]+)*", text)}
    assert written == set(SYNTHESIS)


@pytest.mark.parametrize(
    ("recipe", "name"),
    [
        (Recipe, "config.md"),
        (RefinerRecipe, "refiner_config.md"),
        (ReferenceModelRecipe, "reference_model_config.md"),
        (AblationRecipe, "ablation_config.md"),
    ],
)
def test_every_setting_stands_on_the_page_with_its_docstring(recipe, name):
    page = (REFERENCE / name).read_text()
    stages = [model for field in recipe.model_fields.values() for model in setting_classes(field.annotation)]
    for model in (recipe, *stages, *inner_classes(stages)):
        for name, field in model.model_fields.items():
            assert field.description, f"{model.__name__}.{name} has no docstring"
            lines = [line for line in page.splitlines() if line.startswith(f"- **`{name}`** (")]
            assert any(line.endswith(" ".join(field.description.split())) for line in lines), f"{model.__name__}.{name}"
