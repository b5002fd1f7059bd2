"""Tells main text from boilerplate line by line, after resiliparse took out menus and footers.

Resiliparse's main content keeps nearly all of an article and, with it, bylines, share buttons, teasers and what stands
below the article. A logistic model over `FEATURES` of each line and its neighbours takes most of that out; its weights
in ``line_model.json`` were fitted on half of the pages with known main text (see docs/how-to/extraction.md).

Nothing is learned or remembered between pages.
"""

import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from corpusmill.config import fingerprint
from corpusmill.ingest.marked_lines import Kind, MarkedLine, read_marked_lines, render

Array = NDArray[np.float64]

_OWN = ("length", "prose", "links", "sentence", "digits", "paragraph", "heading", "item")
_NEAR = ("prose", "links", "sentence", "paragraph", "heading")
_PAGE = ("before", "after", "first", "last", "prose_share", "item_share", "page_length", "constant")
FEATURES = (*_OWN, *(f"{name}_above" for name in _NEAR), *(f"{name}_below" for name in _NEAR), *_PAGE)
"""Of each line: its length and its length outside links (logarithms), share in links, whether it ends a sentence, share
of digits, its element; some of these of the lines above and below; share of the page's prose above and below it,
whether it stands before the first or after the last prose, share of prose in the page, items in pages of lists,
the page's prose (logarithm)."""

_KIND_NUMBERS: dict[Kind, int] = {"paragraph": 0, "heading": 1, "item": 2, "text": 3, "code": 4}
SENTENCE_ENDS = frozenset('.!?:\u2026\u3002\uff01\uff1f"\u201d\u00bb')
PROSE_WIDTH, LONG_WIDTH = 80, 200  # a line counts as prose at the first with a sentence end, at the second without
KEPT = 0.4
"""A line stays whose probability of being main text is above this."""
KEPT_OF_FULL_TEXT = 0.7
"""The same where the line was chosen from everything on the page, not from resiliparse's main content."""
FEWEST_KEPT = 0.6
"""Share of the text outside links that must stay; a page that would lose more is unlike those the model knows, and is
left as it is."""
SHORT_WIDTH = 300
"""A page with less main text than this gets a second opinion."""
MOST_LINES = 50_000
"""Lines of markup beyond which a page is left as it is; bounds time and memory."""


class Judged(NamedTuple):
    """Lines of a page with what the model says of them.

    Attributes:
        lines: The lines.
        scores: Probability that a line is main text, (n_lines,).
        widths: Width outside links, (n_lines,).
        prose: The same where the line is prose, else 0, (n_lines,).
    """

    lines: Sequence[MarkedLine]
    scores: Array
    widths: Array
    prose: Array


RULES = 1
"""Version of the rules of this module and of `corpusmill.ingest.marked_lines`; part of the extraction fingerprint."""


def model_digest() -> str:
    """Returns 16 hex digits over rules and weights."""
    return fingerprint([RULES, load_weights().tolist()])


@cache
def load_weights() -> Array:
    """Returns the weights, (n_features,)."""
    stored = json.loads(files("corpusmill.ingest").joinpath("line_model.json").read_text())["weights"]
    return np.array([stored[name] for name in FEATURES])


def line_features(lines: Sequence[MarkedLine]) -> tuple[Array, Array, Array]:
    """Returns the features (n_lines, n_features), the widths outside links, and those of prose (n_lines,).

    Args:
        lines: At least one line.
    """
    width, links, ends, digits, kinds = np.array([_of_line(line) for line in lines], np.float64).T
    outside = width * (1 - links)
    prose = np.where(
        ((outside > PROSE_WIDTH) & (ends > 0)) | (outside > LONG_WIDTH) | (kinds == _KIND_NUMBERS["code"]), outside, 0.0
    )
    all_outside, total = outside.sum() + 1, prose.sum() + 1
    reached = np.cumsum(prose)
    x = np.zeros((len(FEATURES), len(lines)))
    x[0] = np.log1p(width) / 5
    x[1] = np.log1p(outside) / 5
    x[2:5] = links, ends, digits
    x[5:8] = kinds == np.arange(3)[:, None]
    near = x[[1, 2, 3, 5, 6]]
    x[8:13, 1:] = near[:, :-1]
    x[13:18, :-1] = near[:, 1:]
    x[18] = (reached - prose) / total
    x[19] = (reached[-1] - reached) / total
    x[20:22] = x[18:20] == 0
    x[22] = total / all_outside
    x[23] = x[7] * ((x[7] * outside).sum() / all_outside)
    x[24] = np.log1p(total) / 10
    x[25] = 1
    return x.T, outside, prose


def judge(lines: Sequence[MarkedLine]) -> Judged:
    """Returns what the model says of a page's lines; of code it says that it is main text.

    Args:
        lines: At least one line.
    """
    x, outside, prose = line_features(lines)
    scores = 1 / (1 + np.exp(-(x @ load_weights())))
    scores[[line.kind == "code" for line in lines]] = 1.0
    return Judged(lines, scores, outside, prose)


def main_lines(markup: str) -> tuple[list[MarkedLine], float]:
    """Returns the lines of resiliparse's main content that are main text, and their width outside links.

    Args:
        markup: Main content in reduced markup with links.
    """
    lines = read_marked_lines(markup)
    if not lines:
        return [], 0.0
    judged = judge(lines)
    keep = judged.scores > KEPT
    width = float(judged.widths[keep].sum())
    if width < FEWEST_KEPT * (judged.widths.sum() + 1):
        return lines, float(judged.widths.sum())
    return _chosen(judged, keep), width


def second_opinion(markup: str, width: float) -> list[MarkedLine] | None:
    """Returns the main text among all lines of a page, None where that holds no more prose than what was found.

    Args:
        markup: Full text in reduced markup with links.
        width: Width of the main text found before; at least twice as much prose must stand in the answer.
    """
    lines = read_marked_lines(markup)
    if not lines:
        return None
    judged = judge(lines)
    keep = judged.scores > KEPT_OF_FULL_TEXT
    return _chosen(judged, keep) if judged.prose[keep].sum() > 2 * width else None


def refine(markup: str, full_markup: Callable[[], str]) -> str | None:
    """Returns the main text of a page, None where it has too many lines for the model.

    Args:
        markup: Resiliparse's main content in reduced markup with links.
        full_markup: Function that returns the full text in the same form; called for short pages only.
    """
    if markup.count("\n") >= MOST_LINES:
        return None
    lines, width = main_lines(markup)
    if width < SHORT_WIDTH and (full := full_markup()).count("\n") < MOST_LINES:
        lines = second_opinion(full, width) or lines
    return render(lines)


def _chosen(judged: Judged, keep: NDArray[np.bool_]) -> list[MarkedLine]:
    return [line for line, kept in zip(judged.lines, keep.tolist(), strict=True) if kept]


def _of_line(line: MarkedLine) -> tuple[float, float, bool, float, int]:
    text = line.text
    data = text.encode("utf-8", "replace")
    digits = (len(data) - len(data.translate(None, b"0123456789"))) / len(text)
    return line.width, line.link_share, text[-1] in SENTENCE_ENDS, digits, _KIND_NUMBERS[line.kind]
