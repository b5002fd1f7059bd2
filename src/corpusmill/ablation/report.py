"""The report of an ablation: one self-contained HTML page and the same figures as JSON."""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from corpusmill.ablation.arms import NO_PRUNING, columns_of, runs_of, used_references
from corpusmill.ablation.charts import Cut, Line, histogram_chart, line_chart
from corpusmill.ablation.config import share_text
from corpusmill.ablation.experiment import Plan
from corpusmill.ablation.scoring_pool import read_scores
from corpusmill.ablation.summary import histogram, summarise

Progress = Callable[[str], None]
Row = dict[str, Any]


def write_report(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Writes ``report.html`` and ``report.json``; runs without a result are named in both.

    Returns:
        ``html``, ``json``, ``n_runs``, ``n_missing``, and the best arm of each student on the clean test set.
    """
    runs = runs_of(plan.recipe)
    found = {run.label: plan.result(run) for run in runs}
    results = [result for result in found.values() if result is not None]
    rows = summarise(results, plan.recipe.measures.max_epochs)
    values = {
        "name": plan.recipe.name,
        "description": plan.recipe.description,
        "pool_key": plan.pool_key,
        "recipe": plan.recipe.model_dump(mode="json"),
        "missing": [label for label, result in found.items() if result is None],
        "rows": rows,
        "scores": _scores(plan, results),
        "references": _references(plan),
        "curves": [_curves_of(result) for result in results if result["losses"]],
    }
    places = {name: plan.folder / f"report.{name}" for name in ("html", "json")}
    _write(places["json"], json.dumps(_without_nan(values), sort_keys=True, indent=1))
    _write(places["html"], page(values))
    for line in text_table(rows):
        progress(line)
    best = {student: _best(rows, student)["arm"]["label"] for student in plan.recipe.students if _of(rows, student)}
    return {
        **{name: str(place) for name, place in places.items()},
        "n_runs": len(runs),
        "n_missing": len(values["missing"]),
        "best": best,
    }


def text_table(rows: Sequence[Row]) -> list[str]:
    """Returns the main figures as lines for a log."""
    lines = []
    for row in rows:
        tests = ", ".join(f"{name} {test['nll']['mean']:.3f}" for name, test in row["test"].items())
        purity = "" if row["purity"] is None else f", purity {row['purity']:.3f}"
        lines.append(f"{row['student']} | {row['arm']['label']}: {tests} nats per token{purity}")
    return lines


def page(values: Mapping[str, Any]) -> str:
    """Returns the HTML page; every string of the recipe is escaped."""
    rows: list[Row] = values["rows"]
    students = list(dict.fromkeys(row["student"] for row in rows))
    body = [_missing(values["missing"])]
    body += [_section(f"Arms: {student}", _arm_table(_of(rows, student)) + _fraction_charts(rows, student))
             for student in students]  # fmt: skip
    body.append(_section("Scores of the pool", _histograms(values["scores"])))
    body.append(_section("Loss curves", _loss_charts(values["curves"], values["references"])))
    body.append(_section("Cost", _COST_NOTE + _cost_table(rows)))
    body.append(_section("Recipe", f"<pre>{escape(json.dumps(values['recipe'], indent=1))}</pre>"))
    n_seeds = max((len(row["seeds"]) for row in rows), default=0)
    template = resources.files("corpusmill.ablation") / "report.html"
    return Template(template.read_text(encoding="utf-8")).substitute(
        title=escape(f"Ablation {values['name']}"),
        description=escape(values["description"]),
        facts=f"{len(rows)} arms with students, up to {n_seeds} seeds. Pool {escape(values['pool_key'])}. "
        "A gain is how much lower the test perplexity is, in percent.",
        body="\n".join(body),
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _missing(labels: Sequence[str]) -> str:
    if not labels:
        return ""
    items = "".join(f"<li>{escape(label)}</li>" for label in labels)
    return _section(f"{len(labels)} runs have no result yet", f"<ul>{items}</ul>")


def _arm_table(rows: Sequence[Row]) -> str:
    tests = list(dict.fromkeys(name for row in rows for name in row["test"]))
    tasks = list(dict.fromkeys(name for row in rows for name in row["downstream"]))
    head = ["arm", "kept", "purity", "epochs"]
    for name in tests:
        head += [f"{name} perplexity", f"{name} bits per byte", f"{name} gain over all", f"{name} gain over random"]
    head += [*tasks, "warnings"]
    best = min(rows, key=_main_loss)
    lines = []
    for row in rows:
        cells = [row["arm"]["label"], _percent(row["kept_bytes"]), _number(row["purity"]), _number(row["epochs"])]
        for name in tests:
            test = row["test"].get(name)
            cells += [_spread(test and test["perplexity"]), _spread(test and test["bits_per_byte"])]
            cells += [_percent((row[gain] or {}).get(name), 2) for gain in ("gain_over_all", "gain_over_random")]
        cells += [_spread(row["downstream"].get(name)) for name in tasks]
        lines.append(([*cells, "; ".join(row["warnings"])], row is best))
    return _table(head, lines)


def _table(head: Sequence[str], lines: Iterable[tuple[Sequence[str], bool]]) -> str:
    top = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(
        f"<tr{' class=best' if best else ''}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
        for cells, best in lines
    )
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _fraction_charts(rows: Sequence[Row], student: str) -> str:
    own = _of(rows, student)
    charts = [_fraction_chart(own, name) for name in dict.fromkeys(name for row in own for name in row["test"])]
    return f'<div class="charts">{"".join(charts)}</div>'


def _fraction_chart(rows: Sequence[Row], test: str) -> str:
    series: dict[str, list[Row]] = {}
    for row in rows:
        arm = row["arm"]
        if arm["kind"] == "score":
            series.setdefault(f"{arm['column']} {arm['which']} by {arm['reference']}", []).append(row)
        elif arm["kind"] == "random":
            series.setdefault("random", []).append(row)
    lines = []
    for name, group in series.items():
        ordered = sorted(group, key=lambda row: Fraction(row["arm"]["fraction"]))
        losses = [row["test"][test]["nll"] for row in ordered]
        shares = [float(Fraction(row["arm"]["fraction"])) for row in ordered]
        points = [(share, loss["mean"]) for share, loss in zip(shares, losses, strict=True)]
        lines.append(Line(name, points, [loss["std"] for loss in losses], dashed=name == "random"))
    ends = [x for line in lines for x, _ in line.points] or [0.0, 1.0]
    for row in rows:
        if row["arm"]["kind"] in {"none", "stages"}:
            level = row["test"][test]["nll"]["mean"]
            lines.append(Line(row["arm"]["label"], [(min(ends), level), (max(ends), level)], dashed=True))
    return _figure(
        line_chart(lines, "share kept", f"nats per token, {test}", percent=True), f"Test loss on {test} text"
    )


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>" if svg else ""


def _scores(plan: Plan, results: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    from corpusmill.pruning.selection import column_values

    out = []
    for reference in used_references(plan.recipe):
        if not plan.scores(reference).exists():
            continue
        table = read_scores(plan.scores(reference))
        for column in columns_of(plan.recipe, reference):
            values = [float(value) for value in column_values(table, column)]
            cuts = _cuts(results, reference, column)
            out.append({"reference": reference, "column": column, "histogram": histogram(values), "cuts": cuts})
    return out


def _cuts(results: Sequence[Mapping[str, Any]], reference: str, column: str) -> list[dict[str, Any]]:
    cuts: dict[str, dict[str, Any]] = {}
    for result in results:
        arm = result["arm"]
        if (arm["reference"], arm["column"]) != (reference, column):
            continue
        for stratum in result["manifest"]["strata"].values():
            for side in ("lo", "hi"):
                if isinstance(stratum[side], dict):
                    name = f"{arm['which']} {share_text(arm['fraction'])}, {'from' if side == 'lo' else 'below'}"
                    cuts[name] = {"name": name, "x": stratum[side]["score"]}
    return list(cuts.values())


def _histograms(scores: Sequence[Mapping[str, Any]]) -> str:
    figures = [
        _figure(
            histogram_chart(
                item["histogram"]["edges"],
                item["histogram"]["counts"],
                [Cut(cut["x"], f"{cut['name']} {cut['x']:.4g}") for cut in item["cuts"]],
                item["column"],
            ),
            f"{item['column']} by {item['reference']}",
        )
        for item in scores
    ]
    return f'<div class="charts">{"".join(figures)}</div>' if figures else ""


def _references(plan: Plan) -> list[dict[str, Any]]:
    out = []
    for name in used_references(plan.recipe):
        record = plan.scores(name).with_suffix(".json")
        if record.exists():
            out.append({"name": name, **json.loads(record.read_text())})
    return out


def _curves_of(result: Mapping[str, Any]) -> dict[str, Any]:
    label = f"{result['arm']['label']}, seed {result['seed']}"
    return {"student": result["student"], "label": label, "losses": result["losses"], "curve": result["curve"]}


def _loss_charts(curves: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]) -> str:
    figures = []
    for student in dict.fromkeys(curve["student"] for curve in curves):
        own = [curve for curve in curves if curve["student"] == student]
        trained = [Line(c["label"], [(i + 1, y) for i, y in enumerate(c["losses"])]) for c in own]
        figures.append(_figure(line_chart(trained, "step", "training loss"), f"{student}: training loss"))
        for test in ("clean", "crawl"):
            tested = [Line(c["label"], [(p["step"], p[test]) for p in c["curve"] if test in p]) for c in own]
            figures.append(_figure(line_chart(tested, "step", f"{test} test loss"), f"{student}: {test} test loss"))
    for reference in references:
        lines = [
            Line(f"seed {number}", [(i + 1, y) for i, y in enumerate(losses)])
            for number, losses in enumerate(reference["losses"])
        ]
        figures.append(_figure(line_chart(lines, "step", "training loss"), f"reference {reference['name']}"))
    return f'<div class="charts">{"".join(figures)}</div>' if any(figures) else ""


_COST_NOTE = (
    '<p class="note">Floating-point operations without embeddings: 6 N D to train, 2 N D to score or refine. A trigram '
    "has none. Break-even: scoring and training until the final clean test loss of training on all, over training on "
    "all; below 1 pruning pays. Training the reference is apart, it serves many pools.</p>"
)


def _cost_table(rows: Sequence[Row]) -> str:
    head = ["arm", "student", "selecting", "reference", "training", "total", "break-even", "pays from N of"]
    lines = []
    for row in rows:
        even, costs = row["break_even"] or {}, row["costs"]
        cells = [row["arm"]["label"], row["student"]]
        cells += [_flops(costs[f"{name}_flops"]) for name in ("selecting", "reference", "training", "total")]
        cells += [_even(row), _flops(even.get("n_break_even"))]
        lines.append((cells, False))
    return _table(head, lines)


def _even(row: Row) -> str:
    if row["arm"]["label"] == NO_PRUNING or row["break_even"] is None:
        return ""
    ratio = row["break_even"]["ratio"]
    return "never reached" if ratio is None else f"{ratio:.2f}"


def _of(rows: Iterable[Row], student: str) -> list[Row]:
    return [row for row in rows if row["student"] == student]


def _main_loss(row: Row) -> float:
    test = row["test"].get("clean") or row["test"]["crawl"]
    return float(test["nll"]["mean"])


def _best(rows: Sequence[Row], student: str) -> Row:
    return min(_of(rows, student), key=_main_loss)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _percent(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value * 100:.{digits}f}%"


def _flops(value: float | None) -> str:
    return "" if not value else f"{value:.2e}"


def _spread(value: Mapping[str, float] | None) -> str:
    if not value or math.isnan(value["mean"]):
        return ""
    return f"{value['mean']:.4g}" + (f" ± {value['std']:.2g}" if value["std"] else "")


def _without_nan(value: Any) -> Any:
    """Returns the value with NaN and infinity as null, which JSON has no word for."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


def _write(path: Path, text: str) -> None:
    scratch = path.with_suffix(f"{path.suffix}.{os.getpid()}.tmp")
    scratch.write_text(text, encoding="utf-8")
    os.replace(scratch, path)
