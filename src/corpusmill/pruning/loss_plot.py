"""Draws loss curves as one self-contained SVG file: no library, no script, the same bytes for the same curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 720, 400
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 34, 44
MAX_POINTS = 400
COLOURS = ("#1b6ca8", "#c8553d", "#3a7d44", "#8e5ea2", "#b8860b", "#4a4a4a", "#008b8b", "#b0436e")
"""One for each curve, then from the front again."""


@dataclass(frozen=True)
class LossCurve:
    """One training.

    Attributes:
        label: In the legend.
        losses: Nats per token after each step.
        held_out: Pairs of step and nats per token on held-out text.
    """

    label: str
    losses: Sequence[float]
    held_out: Sequence[tuple[int, float]] = ()


def thinned(losses: Sequence[float], n: int) -> list[tuple[int, float]]:
    """Returns at most ``n`` points (step, mean loss of the steps since the last point), the last step among them."""
    size = len(losses)
    bounds = [size * i // min(n, size) for i in range(min(n, size) + 1)] if size else [0]
    return [(end, sum(losses[start:end]) / (end - start)) for start, end in pairwise(bounds)]


def loss_curves_svg(curves: Sequence[LossCurve], title: str, marks: Mapping[int, str] | None = None) -> str:
    """Returns the SVG text: lines for training, dots for held-out text, vertical lines for marked steps.

    Args:
        curves: Trainings; those without a step draw nothing.
        title: Heading.
        marks: Labels of steps, for instance saved checkpoints.
    """
    points = {curve.label: thinned(curve.losses, MAX_POINTS) for curve in curves}
    values = [y for line in points.values() for _, y in line] + [y for c in curves for _, y in c.held_out]
    last = max((line[-1][0] for line in points.values() if line), default=1)
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    frame = _Frame(last, low, high if high > low else low + 1.0)
    parts = [*frame.axes(title), *frame.marks(marks or {})]
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(f"{frame.x(step):.1f},{frame.y(loss):.1f}" for step, loss in points[curve.label])
        parts.append(f'<polyline fill="none" stroke="{colour}" stroke-width="1.3" points="{path}"/>')
        parts += [
            f'<circle cx="{frame.x(step):.1f}" cy="{frame.y(nll):.1f}" r="3.5" fill="{colour}" stroke="#fff">'
            f"<title>{escape(curve.label)}, step {step}: held-out {nll:.3f} nats per token</title></circle>"
            for step, nll in curve.held_out
        ]
        parts += _legend(number, curve.label, colour)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="11" role="img" aria-label="{escape(title)}">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>\n{body}\n</svg>\n'
    )


@dataclass(frozen=True)
class _Frame:
    """Where steps and losses lie on the page."""

    last: int
    low: float
    high: float

    def x(self, step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * step / max(self.last, 1)

    def y(self, loss: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.high - loss) / (self.high - self.low)

    def axes(self, title: str) -> list[str]:
        bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
        parts = [f'<text x="{LEFT}" y="18" font-size="13">{escape(title)}</text>']
        for i in range(5):
            loss = self.low + (self.high - self.low) * i / 4
            y = self.y(loss)
            parts.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#ddd"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{loss:.2f}</text>')
            step = self.last * i // 4
            parts.append(f'<text x="{self.x(step):.1f}" y="{bottom + 16}" text-anchor="middle">{step}</text>')
        parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">optimiser step</text>')
        middle = (TOP + bottom) / 2
        parts.append(
            f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">nats per token</text>'
        )
        return parts

    def marks(self, marks: Mapping[int, str]) -> list[str]:
        parts = []
        for step, label in sorted(marks.items()):
            x = f"{self.x(step):.1f}"
            parts.append(
                f'<line x1="{x}" y1="{TOP}" x2="{x}" y2="{HEIGHT - BOTTOM}" stroke="#999" stroke-dasharray="3 3"/>'
            )
            parts.append(f'<text x="{x}" y="{TOP - 4}" text-anchor="middle" fill="#666">{escape(label)}</text>')
        return parts


def _legend(number: int, label: str, colour: str) -> list[str]:
    y = TOP + 14 + 14 * number
    return [
        f'<rect x="{WIDTH - RIGHT - 110}" y="{y - 8}" width="9" height="9" fill="{colour}"/>',
        f'<text x="{WIDTH - RIGHT - 96}" y="{y}">{escape(label)}</text>',
    ]
