"""Gopher's quality measures: word counts, symbols, bullets, ellipses, alphabetic words, stop words.

Source: Rae et al. 2021 (arXiv 2112.11446), appendix A.1.1, in the reading of datatrove 0.10.1 (FineWeb): tokens of
spaCy's English tokenizer, punctuation tokens included where the rule says "words" without more.
"""

from corpusmill.rules.segment import Words

STOP_WORDS = frozenset({"the", "be", "to", "of", "and", "that", "have", "with"})
"""English; compared case-sensitively, as the reference does."""

Measures = dict[str, float | None]


def line_measures(text: str) -> Measures:
    """Returns the shares of lines that begin with a bullet and that end in an ellipsis; any language.

    Lines are those of `str.splitlines`, blank ones included. Null for a text without lines.
    """
    lines = text.splitlines()
    if not lines:
        return {"gopher_quality_bullet_line_ratio": None, "gopher_quality_end_ellipsis_line_ratio": None}
    n_bullets = sum(1 for line in lines if line.lstrip().startswith(("\u2022", "-")))
    n_ellipses = sum(1 for line in lines if line.rstrip().endswith(("...", "\u2026")))
    return {
        "gopher_quality_bullet_line_ratio": n_bullets / len(lines),
        "gopher_quality_end_ellipsis_line_ratio": n_ellipses / len(lines),
    }


def word_measures(text: str, words: Words) -> Measures:
    """Returns the measures on words; English.

    Args:
        text: The text.
        words: Its words.

    Returns:
        ``n_words`` counts words with at least one character that is no punctuation. ``hash_ratio`` and
        ``ellipsis_ratio`` are characters ``#`` and ellipses ("..." not overlapping, and U+2026) per word;
        ``alpha_word_ratio`` is the share of all words with a letter. Ratios are null for a text without words.
    """
    n = len(words.words)
    n_ellipses = text.count("...") + text.count("\u2026")
    return {
        "gopher_quality_n_words": float(words.n_named),
        "gopher_quality_mean_word_length": words.n_named_chars / words.n_named if words.n_named else None,
        "gopher_quality_hash_ratio": text.count("#") / n if n else None,
        "gopher_quality_ellipsis_ratio": n_ellipses / n if n else None,
        "gopher_quality_alpha_word_ratio": words.n_alpha / n if n else None,
        "gopher_quality_n_stop_words": float(len(STOP_WORDS.intersection(words.words))),
    }
