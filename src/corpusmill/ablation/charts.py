"""Charts as inline SVG, without any library: the page must open anywhere, and forever."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 62, 12, 12, 40
COLOURS = ("#3b6fb6", "#c4572d", "#3d8b57", "#8a5fb0", "#b8860b", "#4a9aa8", "#b0457b", "#6b6b6b")
DASHES = ("", "2 3", "9 3 2 3", "1 5")
"""Patterns of lines: a line beyond the number of colours has the same colour in the next pattern."""
COMPARED = "7 4"
"""Pattern of what is compared against."""
MAX_POINTS = 300
"""Points of a line; a longer one is thinned to means of neighbours."""


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        name: For the legend.
        points: (x, y), in the order of x.
        errors: Half height of each point's error bar; () for none.
        dashed: For what is compared against.
    """

    name: str
    points: Sequence[tuple[float, float]]
    errors: Sequence[float] = ()
    dashed: bool = False


@dataclass(frozen=True)
class Cut:
    """A vertical line, with what stands beside it."""

    x: float
    name: str


@dataclass
class _Scale:
    """From values to places in the picture."""

    x: tuple[float, float]
    y: tuple[float, float]
    parts: list[str] = field(default_factory=list)

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Returns the place of a point."""
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)


def line_chart(lines: Sequence[Line], x_title: str, y_title: str, percent: bool = False) -> str:
    """Returns an SVG of lines with a legend below it, ``""`` where there is no finite point.

    Args:
        lines: The lines.
        x_title: What x is.
        y_title: What y is.
        percent: Write x as a percentage.
    """
    lines = [_finite(line) for line in lines]
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    xs = [x for line in lines for x, _ in line.points]
    ys = [y + sign * error for line in lines for y, error in _with_errors(line) for sign in (-1, 1)]
    scale = _Scale(_range(xs), _range(ys, 0.06))
    _axes(scale, x_title, y_title, percent)
    styles = [_style(number, line.dashed) for number, line in enumerate(lines)]
    for line, style in zip(lines, styles, strict=True):
        _draw(scale, line, style)
    name, x, y = min(((line.name, *point) for line in lines for point in line.points), key=lambda item: item[2])
    at = f"{x * 100:g}%" if percent else f"{x:g}"
    about = f"Line chart, {y_title} by {x_title}: {len(lines)} lines. Lowest: {name}, {y:.4g} at {at}."
    return _svg(scale.parts, about) + _legend([line.name for line in lines], styles)


def histogram_chart(edges: Sequence[float], counts: Sequence[float], cuts: Sequence[Cut], x_title: str) -> str:
    """Returns an SVG of a histogram with cut lines.

    Args:
        edges: Of the bins, one more than there are bins.
        counts: Units in each bin.
        cuts: Lines, with what they mean.
        x_title: What is counted.
    """
    scale = _Scale(_range([*edges, *(cut.x for cut in cuts)]), (0.0, max(max(counts), 1.0) * 1.08))
    _axes(scale, x_title, "number of units", False, whole=True)
    for lo, hi, count in zip(edges, edges[1:], counts, strict=False):
        left, top = scale.at(lo, count)
        right, bottom = scale.at(hi, 0.0)
        size = f'width="{max(right - left - 0.5, 0.5):.1f}" height="{bottom - top:.1f}"'
        scale.parts.append(f'<rect class="bar" x="{left:.1f}" y="{top:.1f}" {size}/>')
    styles = [_style(number, False) for number in range(len(cuts))]
    for cut, style in zip(cuts, styles, strict=True):
        x, _ = scale.at(cut.x, 0.0)
        ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"'
        scale.parts.append(f'<line {ends} {style} stroke-width="1.5"/>')
    about = (
        f"Histogram of {x_title}: {sum(counts):g} units from {edges[0]:.4g} to {edges[-1]:.4g}, {len(cuts)} cut lines."
    )
    return _svg(scale.parts, about) + _legend([cut.name for cut in cuts], styles)


def _style(number: int, dashed: bool) -> str:
    """Returns the stroke of a line; no two of a chart's first 32 are alike."""
    pattern = COMPARED if dashed else DASHES[number // len(COLOURS) % len(DASHES)]
    dash = f' stroke-dasharray="{pattern}"' if pattern else ""
    return f'stroke="{COLOURS[number % len(COLOURS)]}"{dash}'


def _finite(line: Line) -> Line:
    if len(line.points) > MAX_POINTS:
        line = Line(line.name, _thinned(line.points), (), line.dashed)
    keep = [i for i, point in enumerate(line.points) if all(map(math.isfinite, point))]
    errors = [line.errors[i] for i in keep] if line.errors else ()
    return Line(line.name, [line.points[i] for i in keep], errors, line.dashed)


def _with_errors(line: Line) -> list[tuple[float, float]]:
    return [(y, line.errors[i] if line.errors else 0.0) for i, (_, y) in enumerate(line.points)]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = math.ceil(len(points) / MAX_POINTS)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(part[len(part) // 2][0], sum(y for _, y in part) / len(part)) for part in parts]


def _range(values: Sequence[float], margin: float = 0.02) -> tuple[float, float]:
    lo, hi = min(values), max(values)
    pad = (hi - lo) * margin or max(abs(hi) * 0.05, 1e-6)
    return lo - pad, hi + pad


def _axes(scale: _Scale, x_title: str, y_title: str, percent: bool, whole: bool = False) -> None:
    bottom = HEIGHT - BOTTOM
    for value in ticks(*scale.y):
        if whole and value % 1:
            continue  # counts have no halves
        _, y = scale.at(scale.x[0], value)
        scale.parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        scale.parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in ticks(*scale.x):
        x, _ = scale.at(value, scale.y[0])
        shown = f"{value * 100:g}%" if percent else f"{value:g}"
        scale.parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{shown}</text>')
    scale.parts.append(f'<line class="axis" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{bottom}" y2="{bottom}"/>')
    middle = (TOP + bottom) / 2
    scale.parts.append(
        f'<text x="{(LEFT + WIDTH) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>'
        f'<text transform="translate(14 {middle:.0f}) rotate(-90)" text-anchor="middle">{escape(y_title)}</text>'
    )


def ticks(lo: float, hi: float, about: int = 6) -> list[float]:
    """Returns round values inside a range."""
    raw = (hi - lo) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw)
    return [round(n * step, 12) for n in range(math.ceil(lo / step), math.floor(hi / step) + 1)]


def _draw(scale: _Scale, line: Line, style: str) -> None:
    places = [scale.at(x, y) for x, y in line.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    scale.parts.append(f'<polyline fill="none" {style} stroke-width="1.8" points="{path}"/>')
    if len(places) > 40:
        return
    colour = style.split('"')[1]
    for number, (x, y) in enumerate(places):
        scale.parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        if line.errors and line.errors[number]:
            value_x, value_y = line.points[number]
            _, low = scale.at(value_x, value_y - line.errors[number])
            _, high = scale.at(value_x, value_y + line.errors[number])
            scale.parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}" stroke="{colour}" stroke-width="1.2"/>'
            )


def _svg(parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title, quote=True)}">'
        f"{''.join(parts)}</svg>"
    )


def _legend(names: Sequence[str], styles: Sequence[str]) -> str:
    items = []
    for name, style in zip(names, styles, strict=True):
        key = (
            f'<svg class="key" viewBox="0 0 26 8" aria-hidden="true"><line x1="0" x2="26" y1="4" y2="4" {style}/></svg>'
        )
        items.append(f"<li>{key}{escape(name)}</li>")
    return f'<ul class="legend">{"".join(items)}</ul>'
