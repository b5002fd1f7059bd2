"""URL block lists: domains, hosts, whole URLs, and words in the URL.

Source: Penedo et al. 2023 (RefinedWeb, arXiv 2306.01116), appendix G.1, as in datatrove 0.10.1. No list is bundled;
the settings name files. The public suffix list is the one inside the tldextract package, never the network's.
Differs: hosts and words are compared in lower case; the reference compares them as written, so that upper case
escapes. ``as_written=True`` restores that.
"""

import re
from dataclasses import dataclass
from typing import Any

from corpusmill.rules.config import RulesConfig
from corpusmill.rules.lists import Hashes, contains, read_hashes, read_lines

Measures = dict[str, float | None]

_SEPARATORS = re.compile(r"[^a-zA-Z0-9]+")


@dataclass(frozen=True)
class UrlRules:
    """Block lists, each None where the settings name none.

    Attributes:
        domains: Hashes of registered domains and of hosts.
        urls: Hashes of whole URLs.
        words: Words of which one is enough.
        soft_words: Words of which two are needed.
        subwords: Strings looked for in the URL's letters and digits run together.
        as_written: Compare hosts and words without changing case.
        split: tldextract's splitter.
    """

    domains: Hashes | None
    urls: Hashes | None
    words: frozenset[str] | None
    soft_words: frozenset[str] | None
    subwords: frozenset[str] | None
    as_written: bool
    split: Any

    def measure(self, url: str) -> Measures:
        """Returns what the lists say of a URL; null for a list that is not there.

        ``url_*_listed`` are 0 or 1, ``url_n_*`` count distinct list entries.
        """
        host = self.split(url if self.as_written else url.lower())
        tokens = set(_SEPARATORS.split(url))
        if not self.as_written:
            tokens = {token.lower() for token in tokens}
        joined = _normalise(url)
        return {
            "url_domain_listed": _listed(self.domains, host.top_domain_under_public_suffix),
            "url_host_listed": _listed(self.domains, host.fqdn),
            "url_listed": _listed(self.urls, url),
            "url_n_banned_words": None if self.words is None else float(len(self.words & tokens)),
            "url_n_soft_banned_words": None if self.soft_words is None else float(len(self.soft_words & tokens)),
            "url_n_banned_subwords": (
                None if self.subwords is None else float(sum(1 for word in self.subwords if word in joined))
            ),
        }


def load_url_rules(config: RulesConfig) -> UrlRules | None:
    """Returns the lists that the settings name, or None where they name none.

    Raises:
        ConfigError: A file is absent or has another digest.
    """
    words = {
        name: None if file is None else frozenset(map(_normalise, read_lines(file, f"url_{name}"))) - {""}
        for name, file in (
            ("words", config.url_words),
            ("soft_words", config.url_soft_words),
            ("subwords", config.url_subwords),
        )
    }
    hashes = {
        name: None if file is None else read_hashes(file, f"url_{name}")
        for name, file in (("domains", config.url_domains), ("urls", config.url_exact))
    }
    if all(value is None for value in (*words.values(), *hashes.values())):
        return None
    from tldextract import TLDExtract

    split = TLDExtract(cache_dir=None, suffix_list_urls=(), fallback_to_snapshot=True)
    return UrlRules(
        hashes["domains"],
        hashes["urls"],
        words["words"],
        words["soft_words"],
        words["subwords"],
        config.url_as_written,
        split,
    )


def _normalise(text: str) -> str:
    return _SEPARATORS.sub("", text).lower()


def _listed(hashes: Hashes | None, entry: str) -> float | None:
    return None if hashes is None else float(contains(hashes, entry))
