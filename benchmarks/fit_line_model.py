"""Fits the weights of `corpusmill.ingest.line_model` on pages with known main text.

    .venv/bin/python benchmarks/fit_line_model.py [--crawl ../shared/data/crawls] [--half 0] > line_model.json

Only pages of domains in one half are used (by a hash of the domain); the other half is for judging. A line is main text
where at least half of its runs of four words stand in the page's gold text. Logistic regression by Newton's method with
a small ridge; lines weigh by their length, pages equally.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from gold_pages import GoldPage, domain_half, read_gold_pages, words
from resiliparse.extract.html2text import extract_plain_text

from corpusmill.ingest.config import ResiliparseOptions
from corpusmill.ingest.extract import MARKUP
from corpusmill.ingest.line_model import FEATURES, line_features
from corpusmill.ingest.marked_lines import MarkedLine, read_marked_lines

RIDGE = 1e-4
FEWEST_CHARACTERS = 200  # of main text found in a page; a page with less has another gold text than its own


def labels(lines: list[MarkedLine], gold: str) -> "np.ndarray[Any, Any]":
    """Returns 1 for lines of the gold text, 0 for others."""
    found = words(gold)
    runs = {tuple(found[k : k + 4]) for k in range(len(found) - 3)}
    joined = f" {' '.join(found)} "
    result = []
    for line in lines:
        own = words(line.text)
        if len(own) < 4:
            result.append(f" {' '.join(own)} " in joined)
        else:
            inside = [tuple(own[k : k + 4]) in runs for k in range(len(own) - 3)]
            result.append(2 * sum(inside) >= len(inside))
    return np.array(result, np.float64)


def examples(pages: list[GoldPage]) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    """Returns features, labels and weights of all lines."""
    x, y, weight = [], [], []
    options = ResiliparseOptions().model_dump(exclude={"line_model"}) | MARKUP
    for page in pages:
        lines = read_marked_lines(extract_plain_text(page.html, **options))
        if not lines:
            continue
        is_main = labels(lines, page.text)
        length = np.array([len(line.text) for line in lines], np.float64)
        if (length * is_main).sum() < FEWEST_CHARACTERS:
            continue
        x.append(line_features(lines)[0])
        y.append(is_main)
        weight.append(length**0.8 / (length**0.8).sum())
    print(f"{len(x)} pages, {sum(map(len, y))} lines", file=sys.stderr)
    return np.concatenate(x), np.concatenate(y), np.concatenate(weight) / len(x)


def fit(x: Any, y: Any, weight: Any, steps: int = 50) -> "np.ndarray[Any, Any]":
    """Returns the weights that minimise weighted cross-entropy plus the ridge (not on the constant)."""
    ridge = np.full(x.shape[1], RIDGE)
    ridge[-1] = 0
    theta = np.zeros(x.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-x @ theta))
        gradient = x.T @ (weight * (p - y)) + ridge * theta
        hessian = (x * (weight * p * (1 - p))[:, None]).T @ x + np.diag(ridge + 1e-9)
        theta -= np.linalg.solve(hessian, gradient)
    return theta


def main() -> None:
    """Prints the model as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crawl", type=Path, default=Path("../shared/data/crawls"))
    parser.add_argument("--half", type=int, default=0, help="half of the domains to fit on; -1: all")
    options = parser.parse_args()
    pages = [
        page
        for page in read_gold_pages(options.crawl)
        if page.kind != "segments" and options.half in (-1, domain_half(page.domain))
    ]
    theta = fit(*examples(pages))
    model = {name: round(float(value), 4) for name, value in zip(FEATURES, theta, strict=True)}
    print(
        json.dumps({"fitted_on": f"half {options.half} of the domains, {len(pages)} pages", "weights": model}, indent=1)
    )


if __name__ == "__main__":
    main()
