"""Features of a whole text for the document head: dense numbers, and hashed words and word pairs.

The dense ones are means, shares, rates and logarithms, defined for every text (an empty one gives zeros). Ten of them
count words of English; they are nan in a text that is not English, and the head then reads them as average, so that a
German page is not dropped for being German. Style and words are read from the first `READ_CHARS` characters.
Measured: 11 ms a text of 9,700 characters on one core.

Source: style statistics after Gopher (arXiv 2112.11446, appendix A1) and register studies (Biber 1988), the selection
by cross-validation on people's verdicts (docs/how-to/refiner-quality.md).
"""

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from corpusmill.prox.line_features import N_LOCAL, SCALARS, line_features, tokens_of

_SHARES = ("long_lines", "short_lines", "chars_in_long_lines", "chars_in_sentences", "distinct_words", "distinct_lines")
_LOGS = ("log_lines", "log_words", "log_chars", "log_sentences")
_WORDS = ("short_words", "long_words", "number_words", "mark_words", "top_word", "words_once", "distinct_first_words")
DOCUMENT_FEATURES: tuple[str, ...] = (
    *(f"mean_{name}" for name in SCALARS[:N_LOCAL]),
    *(f"char_mean_{name}" for name in SCALARS[:N_LOCAL]),
    *_SHARES,
    *_LOGS,
    *_WORDS,
)
"""Names of the language-neutral features of layout: a head of the first version reads these alone."""
_LONG_LINE, _SHORT_LINE = 200, 40
_SHORT_WORD, _LONG_WORD = 3, 8

_WORD_CLASSES = {
    "function_words": "the be to of and that have with",
    "first_person": "i my me we our us",
    "second_person": "you your",
    "third_person": "he she his her they their it its",
    "connectives": "because although however therefore while which who when if since though whether",
    "prepositions": "of in by from between through during against under",
    "articles": "a an the",
}
_SUFFIXES = {
    "past_forms": ("ed",),
    "ing_forms": ("ing",),
    "adverbs": ("ly",),
    "abstract_nouns": ("tion", "ment", "ness", "ity", "ism"),
}
_COMMONEST = "the be to of and that have with in is a it for on was this are as"
_ENGLISH_SHARE = 0.1
"""A text with a smaller share of the commonest English words is taken for another language (or for no sentences)."""
_MARKS = {
    "question_marks": ("?",),
    "exclamation_marks": ("!",),
    "quotes": ('"', "\u201c", "\u201d"),
    "brackets": ("(",),
    "ellipses": ("...", "\u2026"),
    "dashes": (" - ",),
    "colons": (":",),
    "semicolons": (";",),
    "bars": ("|",),
    "money_and_percent": ("$", "%"),
    "links": ("http", "www."),
}
_CASES = ("capitalised", "capitalised_inside", "shouted")
_SENTENCES = ("sentence_mean", "sentence_median", "sentence_variation", "sentence_longest")
_LINES = ("lines_of_8_words", "line_median", "line_longest", "ends_in_stop", "ends_in_ellipsis", "starts_with_text")
_REPEATS = ("compression", "top_2_words", "top_3_words", "top_4_words", "repeated_3_words", "repeated_5_words")
_VARIETY = ("distinct_in_50", "word_entropy", "digits")
STYLE_FEATURES: tuple[str, ...] = (
    *_WORD_CLASSES,
    *_SUFFIXES,
    *_MARKS,
    *_CASES,
    *_SENTENCES,
    *_LINES,
    *_REPEATS,
    *_VARIETY,
)
"""Names of the features of style; the first ones (`_WORD_CLASSES`, `_SUFFIXES`) count English words."""
N_WORD_BUCKETS = 1 << 14
READ_CHARS = 50_000
"""Characters from the beginning that style and words are read from; 99 % of web texts are shorter."""
_PIECE = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")
_DIGIT = re.compile(r"\d")
_SENTENCE_BREAK = re.compile(r"(?<=[.!?])\s+")
_AROUND_WORD = ".,;:!?\"'()"


@dataclass(frozen=True)
class DocumentFeatures:
    """Features of one text.

    Attributes:
        dense: float64 (features,), `DOCUMENT_FEATURES` then `STYLE_FEATURES`; nan where unknown.
        buckets: int64 (distinct,), buckets of its words and word pairs, ascending.
        counts: float32 (distinct,), 1 + ln of how often each occurs.
    """

    dense: npt.NDArray[np.float64]
    buckets: npt.NDArray[np.int64]
    counts: npt.NDArray[np.float32]


def document_features(lines: Sequence[str]) -> DocumentFeatures:
    """Returns the features of a text, given its lines without the blank ones; defined for every text."""
    if not lines:
        n = len(DOCUMENT_FEATURES) + len(STYLE_FEATURES)
        return DocumentFeatures(np.zeros(n), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
    text = "\n".join(lines)[:READ_CHARS]
    buckets, counts = _hashed_words(text)
    return DocumentFeatures(np.concatenate([_layout(lines), _style(text)]), buckets, counts)


def _layout(lines: Sequence[str]) -> npt.NDArray[np.float64]:
    """Returns `DOCUMENT_FEATURES`: line scalars averaged over lines and characters, shares, sizes, word statistics."""
    features = line_features(lines)
    local = features.local.astype(np.float64)
    sizes = np.array([max(1, len(line)) for line in lines], dtype=np.float64)
    weights = sizes / sizes.sum()
    sentences = local[:, SCALARS.index("ends_sentence")]
    n_sentences = np.expm1(local[:, SCALARS.index("log_sentences")]).sum()
    words = [token for line in lines for token in tokens_of(line)]
    shares = [
        (sizes >= _LONG_LINE).mean(),
        (sizes < _SHORT_LINE).mean(),
        weights[sizes >= _LONG_LINE].sum(),
        (weights * sentences).sum(),
        len(set(words)) / max(1, len(words)) ** 0.8,  # the plain share falls with length
        len(np.unique(features.identity)) / len(lines),
    ]
    n_words = np.expm1(local[:, SCALARS.index("log_words")]).sum()
    logs = np.log1p([len(lines), n_words, sizes.sum(), n_sentences])
    return np.concatenate([local.mean(axis=0), weights @ local, shares, logs, _word_features(words, lines)])


def _word_features(words: Sequence[str], lines: Sequence[str]) -> list[float]:
    """Returns the features named in `_WORDS` over the tokens of all lines' ends."""
    if not words:
        return [0.0] * len(_WORDS)
    kinds, counts = np.unique(np.array(words), return_counts=True)
    sizes = np.array([len(word) for word in words])
    letters = np.array([word.isalpha() for word in words])
    firsts = [line.split(maxsplit=1)[0] for line in lines if line.strip()]
    return [
        float((letters & (sizes <= _SHORT_WORD)).mean()),
        float((letters & (sizes >= _LONG_WORD)).mean()),
        float(np.array([word[0] == "0" for word in words]).mean()),
        float(np.array([not word.isalnum() for word in words]).mean()),
        float(counts.max() / len(words)),
        float((counts == 1).sum() / len(kinds)),
        len(set(firsts)) / max(1, len(firsts)),
    ]


def _style(text: str) -> npt.NDArray[np.float64]:
    """Returns `STYLE_FEATURES`; the words are split at white space."""
    raw = text.split()
    words = [word.lower().strip(_AROUND_WORD) for word in raw]
    n = max(1, len(words))
    counts = Counter(words)
    lower = text.lower()
    marks = [(sum(lower.count(mark) for mark in marks) / n) ** 0.5 for marks in _MARKS.values()]
    return np.array(
        [
            *_english(counts, n),
            *marks,
            sum(word[0].isupper() for word in raw) / n,
            sum(b[0].isupper() and a[-1] not in ".!?:" for a, b in pairwise(raw)) / n,
            sum(len(word) > 2 and word.isupper() for word in raw) / n,
            *_sentence_lengths(text),
            *_line_lengths(text.split("\n")),
            *_repetition(text, words),
            *_variety(text, words, counts),
        ]
    )


def _english(counts: Counter[str], n_words: int) -> list[float]:
    if sum(counts[word] for word in _COMMONEST.split()) < _ENGLISH_SHARE * n_words:
        return [float("nan")] * (len(_WORD_CLASSES) + len(_SUFFIXES))
    classes = [sum(counts[word] for word in members.split()) / n_words for members in _WORD_CLASSES.values()]
    suffixes = [
        sum(count for word, count in counts.items() if word.endswith(suffix)) / n_words for suffix in _SUFFIXES.values()
    ]
    return classes + suffixes


def _sentence_lengths(text: str) -> list[float]:
    """Returns log mean, log median, variation and log longest of the sentences' lengths in words."""
    lengths = np.array([len(sentence.split()) for sentence in _SENTENCE_BREAK.split(text)])
    mean = float(lengths.mean())
    spread = float(lengths.std()) / max(1.0, mean)
    return [float(np.log1p(mean)), float(np.log1p(np.median(lengths))), spread, float(np.log1p(lengths.max()))]


def _line_lengths(lines: Sequence[str]) -> list[float]:
    lengths = np.array([len(line.split()) for line in lines])
    last = lines[-1].rstrip()
    return [
        float((lengths >= 8).mean()),
        float(np.log1p(np.median(lengths))),
        float(np.log1p(lengths.max())),
        float(last[-1:] in tuple('.!?"')),
        float(last.endswith("...")),
        float(lengths[0] > 12),
    ]


def _repetition(text: str, words: Sequence[str]) -> list[float]:
    """Returns how well the text packs, the commonest word groups' share of characters, the share of repeated groups."""
    raw = text.encode("utf-8", "surrogatepass")
    packed = len(zlib.compress(raw)) / max(1, len(raw)) * float(np.log1p(len(raw)))
    groups = {n: Counter(zip(*(words[i:] for i in range(n)), strict=False)) for n in (2, 3, 4, 5)}
    tops = [
        max((count * sum(map(len, group)) for group, count in groups[n].items()), default=0) / max(1, len(text))
        for n in (2, 3, 4)
    ]
    repeats = [1 - len(groups[n]) / max(1, groups[n].total()) if groups[n] else 0.0 for n in (3, 5)]
    return [packed, *tops, *repeats]


def _variety(text: str, words: Sequence[str], counts: Counter[str]) -> list[float]:
    """Returns the share of distinct words in stretches of 50, the entropy of words in nats, the share of digits."""
    n = max(1, len(words))
    shares = np.array(list(counts.values())) / n
    stretches = [len(set(words[i : i + 50])) / 50 for i in range(0, len(words) - 49, 10)]
    return [
        float(np.mean(stretches)) if stretches else 0.8,  # a short text says nothing: about the average
        float(-(shares * np.log(shares)).sum()) if len(shares) else 0.0,
        len(_DIGIT.findall(text)) / max(1, len(text)),
    ]


def _hashed_words(text: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    pieces = _PIECE.findall(_DIGIT.sub("0", text.lower()))
    pairs = (f"{a}_{b}" for a, b in pairwise(pieces))
    hashes = [zlib.crc32(gram.encode("utf-8", "surrogatepass")) % N_WORD_BUCKETS for gram in (*pieces, *pairs)]
    buckets, counts = np.unique(np.array(hashes, dtype=np.int64), return_counts=True)
    return buckets, (1 + np.log(counts)).astype(np.float32)
