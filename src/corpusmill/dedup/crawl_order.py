"""The order of crawls: older crawls keep their copy of a duplicated document."""

import re


def crawl_order(crawl: str) -> tuple[tuple[int, int | str], ...]:
    """Returns a sort key under which an older crawl comes first.

    Crawl ids hold year and week (``CC-MAIN-2024-10``); runs of digits compare as numbers, everything else as text, so
    that the order is a function of the id alone and needs no release list.
    """
    return tuple((0, int(p)) if p.isdigit() else (1, p) for p in re.split(r"(\d+)", crawl) if p)
