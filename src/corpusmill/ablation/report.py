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
COLUMN_TITLES = {
    "perplexity": "mean NLL (nats per token)",
    "bits_per_byte": "bits per byte",
    "el2n": "EL2N (0 to 1.41)",
    "memorization": "memorization (share of tokens)",
    "teacher_forced_accuracy": "greedy hits (share of tokens)",
    "top_k_hit_rate": "top-k hits (share of tokens)",
    "excess_nll": "excess loss (nats per token)",
}
"""What the axis of a score is called."""


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
    recipe = escape(json.dumps(values["recipe"], indent=1))
    body.append(
        _section("Recipe", f"<details><summary>All settings, defaults included</summary><pre>{recipe}</pre></details>")
    )
    n_arms = len({row["arm"]["label"] for row in rows})
    n_seeds = max((len(row["seeds"]) for row in rows), default=0)
    template = resources.files("corpusmill.ablation") / "report.html"
    return Template(template.read_text(encoding="utf-8")).substitute(
        title=escape(f"Ablation {values['name']}"),
        description=escape(values["description"]),
        facts=f"{n_arms} arms; students: {escape(', '.join(students))}; up to {n_seeds} seeds each. "
        f"Pool {escape(values['pool_key'])}.",
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
    head = ["arm", "kept bytes", "purity", "epochs"]
    for name in tests:
        head += [f"{name} perplexity", f"{name} bits per byte", f"{name} gain over all", f"{name} gain over random"]
    head += [*tasks, "warnings"]
    best = min(rows, key=_main_loss)
    lines = []
    for row in rows:
        cells = [row["arm"]["label"], _percent(row["kept_bytes"]), _fixed(row["purity"], 3), _fixed(row["epochs"], 2)]
        for name in tests:
            test = row["test"].get(name)
            cells += [_spread(test and test["perplexity"]), _spread(test and test["bits_per_byte"], 3)]
            cells += [_percent((row[gain] or {}).get(name)) for gain in ("gain_over_all", "gain_over_random")]
        cells += [_spread(row["downstream"].get(name), 3) for name in tasks]
        lines.append(([*cells, "; ".join(row["warnings"])], row is best))
    return _ARM_NOTE + _table("Arms", head, lines)


def _table(name: str, head: Sequence[str], lines: Iterable[tuple[Sequence[str], bool]]) -> str:
    """Returns a table that scrolls by itself, also by the keyboard; the first cell of a row is its heading."""
    top = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    body = "".join(
        f'<tr{" class=best" if best else ""}><th scope="row">{escape(cells[0])}</th>'
        + "".join(f"<td>{escape(cell)}</td>" for cell in cells[1:])
        + "</tr>"
        for cells, best in lines
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(name, quote=True)}"><table>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _fraction_charts(rows: Sequence[Row], student: str) -> str:
    own = _of(rows, student)
    charts = [
        _fraction_chart(group, name, by)
        for by, group in _by_reference(own)
        for name in dict.fromkeys(name for row in own for name in row["test"])
    ]
    return f'<div class="charts">{"".join(charts)}</div>'


def _by_reference(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """Returns a chart's rows for each reference: its own arms, and those that no reference chose."""
    references = list(dict.fromkeys(row["arm"]["reference"] for row in rows if row["arm"]["kind"] == "score")) or [""]
    return [(name, [row for row in rows if row["arm"]["reference"] in ("", name)]) for name in references]


def _fraction_chart(rows: Sequence[Row], test: str, reference: str) -> str:
    series: dict[str, list[Row]] = {}
    for row in rows:
        if row["arm"]["kind"] in {"score", "random"}:
            series.setdefault(_without_share(row["arm"]), []).append(row)
    lines = []
    for name, group in series.items():
        ordered = sorted(group, key=lambda row: Fraction(row["arm"]["fraction"]))
        losses = [row["test"][test]["nll"] for row in ordered]
        shares = [float(Fraction(row["arm"]["fraction"])) for row in ordered]
        points = [(share, loss["mean"]) for share, loss in zip(shares, losses, strict=True)]
        lines.append(Line(name, points, [loss["std"] for loss in losses], dashed=name == "random"))
    ends = [x for line in lines for x, _ in line.points]
    if len(set(ends)) < 2:
        ends = [0.0, 1.0]  # one share is a point; what it is compared against stays a line
    for row in rows:
        if row["arm"]["kind"] in {"none", "stages"}:
            level = row["test"][test]["nll"]["mean"]
            lines.append(Line(row["arm"]["label"], [(min(ends), level), (max(ends), level)], dashed=True))
    chart = line_chart(lines, "share kept", "nats per token", percent=True)
    return _figure(chart, f"Loss on {test} test text" + (f", arms by {reference}" if reference else ""))


def _without_share(arm: Mapping[str, Any]) -> str:
    """Returns what the arms of one line share: their label without the share and the reference."""
    name = arm["label"].replace(f" {share_text(arm['fraction'])}", "", 1)
    return str(name.removesuffix(f" by {arm['reference']}"))


def _figure(svg: str, caption: str) -> str:
    return f"<figure><figcaption>{escape(caption)}</figcaption>{svg}</figure>" if svg else ""


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
        if (arm["reference"], arm["column"], arm["by"]) != (reference, column, []):
            continue  # an arm within strata has a cut in each
        for stratum in result["manifest"]["strata"].values():
            for side in ("lo", "hi"):
                if isinstance(stratum[side], dict):
                    of = "" if arm["weight"] == "rows" else f" of {arm['weight'].removeprefix('n_')}"
                    end = "from" if side == "lo" else "below"
                    name = f"{arm['which']} {share_text(arm['fraction'])}{of}, {end}"
                    cuts[name] = {"name": name, "x": stratum[side]["score"]}
    return list(cuts.values())


def _histograms(scores: Sequence[Mapping[str, Any]]) -> str:
    figures = [
        _figure(
            histogram_chart(
                item["histogram"]["edges"],
                item["histogram"]["counts"],
                [Cut(cut["x"], f"{cut['name']} {cut['x']:.4g}") for cut in item["cuts"]],
                COLUMN_TITLES[item["column"]],
            ),
            f"{COLUMN_TITLES[item['column']]}, by {item['reference']}",
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
    arm = result["arm"]
    about = {"student": result["student"], "arm": arm["label"], "reference": arm["reference"], "seed": result["seed"]}
    return {**about, "losses": result["losses"], "curve": result["curve"]}


def _loss_charts(curves: Sequence[Mapping[str, Any]], references: Sequence[Mapping[str, Any]]) -> str:
    figures = []
    for student in dict.fromkeys(curve["student"] for curve in curves):
        own = [curve for curve in curves if curve["student"] == student]
        for name in list(dict.fromkeys(curve["reference"] for curve in own if curve["reference"])) or [""]:
            group = [curve for curve in own if curve["reference"] in ("", name)]
            where = f", arms by {name}" if name else ""
            figures += [_figure(chart, f"{student}: {what}{where}") for what, chart in _curve_charts(group)]
    for reference in references:
        lines = [
            Line(f"seed {number}", [(i + 1, y) for i, y in enumerate(losses)])
            for number, losses in enumerate(reference["losses"])
        ]
        chart = line_chart(lines, "step", "nats per token")
        figures.append(_figure(chart, f"reference {reference['name']}: training loss"))
    return f'<div class="charts">{"".join(figures)}</div>' if any(figures) else ""


def _curve_charts(curves: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Returns what and the chart, one line an arm: the mean over its seeds at each step that all of them measured."""
    seeds: dict[str, list[Mapping[str, Any]]] = {}
    for curve in curves:
        seeds.setdefault(curve["arm"], []).append(curve)
    trained = [Line(arm, _mean_curve([dict(enumerate(c["losses"], 1)) for c in own])) for arm, own in seeds.items()]
    charts = [("training loss", line_chart(trained, "step", "nats per token"))]
    for test in ("clean", "crawl"):
        lines = [
            Line(arm, _mean_curve([{p["step"]: p[test] for p in c["curve"] if test in p} for c in own]))
            for arm, own in seeds.items()
        ]
        charts.append((f"loss on {test} test text", line_chart(lines, "step", "nats per token")))
    return charts


def _mean_curve(curves: Sequence[Mapping[float, float]]) -> list[tuple[float, float]]:
    steps = set(curves[0]).intersection(*curves[1:])
    return [(step, sum(curve[step] for curve in curves) / len(curves)) for step in sorted(steps)]


_ARM_NOTE = (
    '<p class="note">Kept bytes: of the pool. Purity: share of the kept bytes that are clean text, where that is '
    "known. Epochs: how often the student saw its corpus. A gain is how much lower the test perplexity is; negative: "
    "higher. ± is the standard deviation over seeds. Bold: the lowest loss on the clean test text.</p>"
)
_COST_NOTE = (
    '<p class="note">Floating-point operations without embeddings: 6 N D to train, 2 N D to score or refine. A trigram '
    "has none; rules and labellers run no language model and have CPU seconds instead. Unknown: a served model whose "
    "size is not told. Break-even: scoring and training until the final clean test loss of training on all, over "
    "training on all; below 1 pruning pays. Training the reference is apart, it serves many pools.</p>"
)


def _cost_table(rows: Sequence[Row]) -> str:
    head = ["arm", "student", "selecting", "selecting, CPU s", "reference", "training", "total", "break-even"]
    head.append("pays from parameters")
    lines = []
    for row in rows:
        even, costs = row["break_even"] or {}, row["costs"]
        cells = [row["arm"]["label"], row["student"]]
        cells += [_flops(costs["selecting_flops"]), f"{row['selecting_seconds'] or 0:.1f}"]
        cells += [_flops(costs[f"{name}_flops"]) for name in ("reference", "training", "total")]
        pays_from = even.get("n_break_even")
        cells += [_even(row), "" if pays_from is None else _flops(pays_from)]
        lines.append((cells, False))
    return _table("Cost", head, lines)


def _even(row: Row) -> str:
    if row["costs"]["selecting_flops"] is None:
        return "unknown"
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


def _fixed(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value * 100:.1f}%"


def _flops(value: float | None) -> str:
    """Returns operations as 1.23e9; unknown ones are not 0."""
    if value is None:
        return "unknown"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa}e{int(exponent)}" if value else "0"


def _spread(value: Mapping[str, float] | None, digits: int | None = None) -> str:
    if not value or math.isnan(value["mean"]):
        return ""
    mean = f"{value['mean']:.4g}" if digits is None else f"{value['mean']:.{digits}f}"
    return mean + (f" ± {value['std']:.2g}" if value["std"] else "")


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
