"""The labelled pages that a training of line networks reads: full text, and main content where crawls are at hand."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpusmill.prox.labelled_pages import LabelledPage, main_content_pages, read_labelled_pages
from corpusmill.prox.line_training import Example, examples_of

MAIN_CONTENT_SHARE = 0.1
"""Share of training windows cut from main-content text. Measured on 216 pages of unseen domains: at .35 the keep-F1 on
full text was .04 to .11 lower than at 0 at equal steps, because an ambiguous page is then taken for extracted text."""


@dataclass(frozen=True)
class TrainingTexts:
    """Pages to train on and pages of other domains to choose and measure by.

    Attributes:
        train: Pages of each kind of text: full text, then main content if there is any.
        dev: The same for the dev pages.
    """

    train: tuple[Sequence[LabelledPage], ...]
    dev: tuple[Sequence[LabelledPage], ...]

    def groups(self) -> list[tuple[float, Sequence[Example]]]:
        """Returns (probability, examples) of each kind of text that has any."""
        shares = [1.0] if len(self.train) == 1 else [1 - MAIN_CONTENT_SHARE, MAIN_CONTENT_SHARE]
        groups = [(share, examples_of(pages)) for share, pages in zip(shares, self.train, strict=True)]
        return [group for group in groups if group[1]]

    def dev_groups(self) -> list[Sequence[Example]]:
        """Returns the examples of each kind of dev text that has any."""
        return [examples for pages in self.dev if (examples := examples_of(pages))]

    def facts(self) -> dict[str, Any]:
        """Returns what a model's ``config.json`` says of them."""
        domains = {page.domain for page in self.train[0] if page.domain}
        return {
            "main_content_pages": sum(len(pages) for pages in self.train[1:]),
            "dev_domains_in_training": len(domains & {page.domain for page in self.dev[0]}),
        }


def read_training_texts(train_file: Path, dev_file: Path, crawls: Path | None) -> TrainingTexts:
    """Returns the texts of two files of labelled pages.

    Args:
        train_file: Labelled pages.
        dev_file: Labelled pages of other domains.
        crawls: Crawl folder with the pages' records, for their main-content texts; None: full text only.

    Raises:
        PermanentDataError: A file is not in its format.
    """

    def kinds(file: Path) -> tuple[Sequence[LabelledPage], ...]:
        pages = read_labelled_pages(file)
        return (pages,) if crawls is None else (pages, main_content_pages(pages, crawls))

    return TrainingTexts(kinds(train_file), kinds(dev_file))
