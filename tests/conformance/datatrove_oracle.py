"""Prints what datatrove's filters decide: one JSON line a document.

Runs in the peers' environment (benchmarks/peers.txt), never in ours:

    .venv-peers/bin/python tests/conformance/datatrove_oracle.py [--lists F] [--language-model F] < documents > verdicts

A document is ``{"id": ..., "text": ...}`` or ``{"id": ..., "url": ...}``, one a line.
"""

import argparse
import contextlib
import hashlib
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

from datatrove.data import Document
from datatrove.pipeline.filters import (
    C4QualityFilter,
    FineWebQualityFilter,
    GopherQualityFilter,
    GopherRepetitionFilter,
    LanguageFilter,
    URLFilter,
)
from datatrove.pipeline.filters.gopher_quality_filter import STOP_WORDS
from datatrove.pipeline.filters.gopher_repetition_filter import (
    find_all_duplicate,
    find_duplicates,
    find_top_duplicate,
    get_n_grams,
)
from datatrove.pipeline.formatters.pii import PIIFormatter
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION, split_into_sentences, split_into_words

FILTERS = {
    "gopher_repetition": GopherRepetitionFilter(),
    "gopher_quality": GopherQualityFilter(),
    "fineweb": FineWebQualityFilter(),
    "c4": C4QualityFilter(),
    "c4_nopunct": C4QualityFilter(filter_no_terminal_punct=False),
}
CHAIN = ("gopher_repetition", "gopher_quality", "c4_nopunct", "fineweb")
PII = PIIFormatter()


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def verdict(name: str, document: Document) -> str:
    """Returns "keep", "drop:<reason>" or "raise:<error>"."""
    try:
        result = FILTERS[name].filter(document)
    except (ZeroDivisionError, ValueError, AssertionError, IndexError) as error:
        return f"raise:{type(error).__name__}"
    kept, reason = result if isinstance(result, tuple) else (result, "")
    return "keep" if kept else f"drop:{reason}"


def measures(text: str, words: list[str]) -> dict[str, float]:
    """Returns the numbers behind the decisions, from datatrove's own functions and expressions."""
    named = [w for w in words if any(ch not in PUNCTUATION_SET for ch in w)]
    lines = text.splitlines()
    values: dict[str, float] = {}

    def put(name: str, compute: Callable[[], float]) -> None:
        with contextlib.suppress(ZeroDivisionError, IndexError):
            values[name] = float(compute())

    paragraphs = find_duplicates(re.split(r"\n{2,}", text.strip()))
    n_paragraphs = len(re.split(r"\n{2,}", text.strip()))
    split_lines = re.split(r"\n+", text)
    duplicate_lines = find_duplicates(split_lines)
    put("gopher_repetition_dup_para_frac", lambda: paragraphs[0] / n_paragraphs if text else 1 / 0)
    put("gopher_repetition_dup_para_char_frac", lambda: paragraphs[1] / len(text))
    put("gopher_repetition_dup_line_frac", lambda: duplicate_lines[0] / len(split_lines) if text else 1 / 0)
    put("gopher_repetition_dup_line_char_frac", lambda: duplicate_lines[1] / len(text))
    for n in (2, 3, 4):
        put(f"gopher_repetition_top_{n}_gram", lambda n=n: find_top_duplicate(get_n_grams(words, n)) / len(text))
    for n in range(5, 11):
        put(f"gopher_repetition_dup_{n}_grams", lambda n=n: find_all_duplicate(words, n) / len(text))
    put("gopher_quality_n_words", lambda: len(named))
    put("gopher_quality_mean_word_length", lambda: sum(map(len, named)) / len(named))
    put("gopher_quality_hash_ratio", lambda: text.count("#") / len(words))
    put("gopher_quality_ellipsis_ratio", lambda: (text.count("...") + text.count("\u2026")) / len(words))
    bullets = [s for s in lines if s.lstrip().startswith("\u2022") or s.lstrip().startswith("-")]
    ends = [s for s in lines if s.rstrip().endswith("...") or s.rstrip().endswith("\u2026")]
    put("gopher_quality_bullet_line_ratio", lambda: len(bullets) / len(lines))
    put("gopher_quality_end_ellipsis_line_ratio", lambda: len(ends) / len(lines))
    put("gopher_quality_alpha_word_ratio", lambda: sum(any(c.isalpha() for c in w) for w in words) / len(words))
    put("gopher_quality_n_stop_words", lambda: len(set(STOP_WORDS).intersection(words)))
    full = [line for line in text.split("\n") if line.strip() != ""]
    put("fineweb_line_punct_ratio", lambda: sum(s.endswith(tuple(TERMINAL_PUNCTUATION)) for s in full) / len(full))
    put("fineweb_short_line_ratio", lambda: sum(len(s) <= 30 for s in full) / len(full))
    put("fineweb_char_dup_ratio", lambda: find_duplicates(full)[1] / len(text.replace("\n", "")) if full else 1 / 0)
    put("fineweb_list_ratio", lambda: text.count("\n") / len(words))
    return values


def judge_text(text: str, languages: LanguageFilter | None) -> dict[str, Any]:
    words = split_into_words(text)
    result: dict[str, Any] = {
        "words": digest("\n".join(words)),
        "sentences": len(split_into_sentences(text)),
        "measures": measures(text, words),
    }
    for name in FILTERS:
        document = Document(text=text, id="0")
        result[name] = verdict(name, document)
        if name.startswith("c4"):
            result[f"{name}_text"] = digest(document.text)
    document = Document(text=text, id="0")
    result["chain"] = "keep"
    for name in CHAIN:
        result["chain"] = verdict(name, document)
        if result["chain"] != "keep":
            break
    result["chain_text"] = digest(document.text)
    result["emails"] = [m.span() for m in PII.emails_replacer.regex.finditer(text)]
    addresses = (m for m in PII.ip_replacer.regex.finditer(text) if PII.ip_replacer.validator(m.group(0)))
    result["addresses"] = [m.span() for m in addresses]
    if languages is not None:
        document = Document(text=text, id="0")
        result["language_kept"] = bool(languages.filter(document))
        result["language"] = [document.metadata["language"], round(document.metadata["language_score"], 4)]
    return result


def url_filter(lists: dict[str, list[str]]) -> URLFilter:
    """Returns the filter over our lists only; the public suffix list is the package's snapshot, as without network."""
    from tldextract import TLDExtract

    made = URLFilter(
        extra_domains=lists["domains"],
        extra_urls=lists["urls"],
        banned_words=lists["words"],
        banned_subwords=lists["subwords"],
        soft_banned_words=lists["soft_words"],
        use_integrated_lists=False,
    )
    made.tldextractor = TLDExtract(cache_dir=None, suffix_list_urls=(), fallback_to_snapshot=True)
    return made


def language_filter(model: str) -> LanguageFilter:
    from fasttext.FastText import _FastText

    made = LanguageFilter(languages=["en"])
    made.model._model = _FastText(model)
    return made


def judge_all(lines: Iterator[str], urls: URLFilter | None, languages: LanguageFilter | None) -> None:
    for line in lines:
        record = json.loads(line)
        if "url" in record:
            found = urls.filter(Document(text="x", id="0", metadata={"url": record["url"]}))
            result = {"url": "keep" if found is True else f"drop:{found[1]}"}
        else:
            result = judge_text(record["text"], languages)
        sys.stdout.write(json.dumps({"id": record["id"], **result}) + "\n")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lists", help="JSON file of URL lists")
    parser.add_argument("--language-model", help="fastText model file")
    options = parser.parse_args()
    lists = None
    if options.lists:
        with open(options.lists, encoding="utf-8") as stream:
            lists = url_filter(json.load(stream))
    model = language_filter(options.language_model) if options.language_model else None
    judge_all(sys.stdin, lists, model)
