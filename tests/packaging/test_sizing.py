"""The arithmetic of the sizing guide holds: every result is computed again from the inputs beside it."""

import ast
import operator
import re
from pathlib import Path

import pytest

GUIDE = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "sizing.md").read_text()
OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
DIGITS = 0.006
"""Relative rounding of three digits."""


def rows(title):
    """The cells of each row of the table below a heading."""
    section = GUIDE.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def compute(formula, names):
    def value(node):
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.Name):
            return names[node.id]
        if isinstance(node, ast.Call) and node.func.id == "min":
            return min(value(argument) for argument in node.args)
        return ast.literal_eval(node)

    return value(ast.parse(formula, mode="eval").body)


@pytest.fixture(scope="module")
def sized():
    """Inputs and results by name, the results as they come out now."""
    names = {name: float(number) for name, number, _, _ in rows("What goes in")}
    for name, formula, _, _ in rows("What comes out"):
        names[name] = compute(formula, names)
    return names


def test_every_result_follows_from_its_formula(sized):
    shown = {name: float(number) for name, _, number, _ in rows("What comes out")}
    assert len(shown) > 15
    wrong = {n: (v, sized[n]) for n, v in shown.items() if abs(sized[n] - v) > DIGITS * abs(v)}
    assert wrong == {}


def test_every_input_is_used_and_says_where_it_is_from():
    used = set(re.findall(r"[a-z_]+", " ".join(formula for _, formula, _, _ in rows("What comes out"))))
    assert [name for name, *_ in rows("What goes in") if name not in used] == []
    assert [name for name, _, _, source in rows("What goes in") if len(source) < 7] == []


def test_what_the_text_says_of_the_table_holds(sized):
    share = sized["gpu_cost"] / (sized["gpu_cost"] + sized["cpu_cost"])
    assert f"{round(100 * share)} % of the computing money" in GUIDE
    assert f"{sized['shard_hours']:.1f} core hours of `clean`" in GUIDE
    assert f"{sized['gpu_shard_hours']:.1f} GPU hours of the models" in GUIDE
    gigabits = sized["warc_files"] * 1e9 * 8 / (sized["days"] * 24 * 3600) / 1e9
    assert f"{gigabits:.1f} Gbit/s" in GUIDE
    assert sized["shards"] <= 1024


def test_the_measured_rates_are_the_quotients_of_the_measurement(sized):
    seconds = re.search(
        r"(\d+) pages in ([\d.]+) - ([\d.]+) s \(ingest\) and in ([\d.]+) - ([\d.]+) s \(clean\)", GUIDE
    )
    pages, *times = (float(part) for part in seconds.groups())
    assert round(pages / (times[0] - times[1])) == sized["ingest_rate"]
    assert round(pages / (times[2] - times[3])) == sized["clean_rate"]
