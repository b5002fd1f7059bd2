"""The order of crawls: older crawls keep their copy of a duplicated document, or those that are published."""

import re
from collections.abc import Iterable

from corpusmill.dedup.config import Survivor


def crawl_order(crawl: str) -> tuple[tuple[int, int | str], ...]:
    """Returns a sort key under which an older crawl comes first.

    Crawl ids hold year and week (``CC-MAIN-2024-10``); runs of digits compare as numbers, everything else as text, so
    that the order is a function of the id alone and needs no release list.
    """
    return tuple((0, int(p)) if p.isdigit() else (1, p) for p in re.split(r"(\d+)", crawl) if p)


def crawls_before(crawl: str, published: Iterable[str], survivor: Survivor) -> list[str]:
    """Returns the published crawls that keep their copy of what a crawl holds too, oldest first.

    Args:
        crawl: A crawl, published already or not.
        published: Ids of the published crawls.
        survivor: Under ``oldest_crawl`` these are the older ones, under ``first_published`` all others: what a crawl
            has published itself, none of these holds.
    """
    if survivor == "first_published":
        return sorted((other for other in published if other != crawl), key=crawl_order)
    return sorted((other for other in published if crawl_order(other) < crawl_order(crawl)), key=crawl_order)


def crawls_after(crawl: str, published: Iterable[str], survivor: Survivor) -> list[str]:
    """Returns the published crawls that give up their copy of what a crawl holds too, oldest first."""
    if survivor == "first_published":
        return []
    return sorted((other for other in published if crawl_order(other) > crawl_order(crawl)), key=crawl_order)
