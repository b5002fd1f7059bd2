"""Noise of known kind, mixed into clean text: repeated templates and three sorts of junk.

With it one knows of every passage how much of it a selection should keep, which no real crawl tells. Real crawls have
the same two ends: boilerplate that any model predicts well, and strings that no model predicts.
"""

import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from corpusmill.ablation.config import NoiseConfig

CLEAN, BOILERPLATE, JUNK = "clean", "boilerplate", "junk"
BLOCK_CHARS = 600
"""Noise comes in blocks of about so many characters, as menus, footers and broken extractions do."""
TEMPLATES = (
    "We use cookies to give you the best experience on our website. By continuing to browse you agree to our policy.",
    "Home | About us | Contact | Privacy policy | Terms of use | Site map | Help",
    "Copyright {year} {site}. All rights reserved. No part of this page may be reproduced without permission.",
    "Subscribe to our newsletter and receive the latest news from {site} directly in your inbox every {day}.",
    "Please enable JavaScript in your browser to use all functions of this page.",
    "Share this page: Email Print Copy link. {n} people have shared it.",
    "You must be logged in to post a comment. Log in or register. {n} comments.",
    "Posted on {day}, {n} {month} {year} by admin. Filed under: News. Leave a reply.",
    "Add to basket. Free delivery on orders over {n} euros. Items are usually dispatched within {few} days.",
    "Was this article helpful? Yes No. {n} of our readers found this article helpful.",
    "Read more articles like this one on {site}. Related articles. Most popular. Latest comments.",
    "This site is protected by reCAPTCHA. Click here to go back to the top of the page.",
)
SITES = ("Daily Herald", "Town Gazette", "Home and Garden", "Science Today", "The Courier")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October")
CHARACTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%&$#@!?*+-=_/\\|<>{}[]();:,."


@dataclass(frozen=True)
class Document:
    """One document.

    Attributes:
        doc_id: Id; pieces of one source share what stands before ``#``.
        text: Its text.
        kinds: What each line of the text is (`CLEAN`, `BOILERPLATE`, `JUNK`); None where nobody knows.
        language: Its language as its source names it; None where it names none.
        domain: Registered domain of its URL; None where it has none.
    """

    doc_id: str
    text: str
    kinds: tuple[str, ...] | None = None
    language: str | None = None
    domain: str | None = None


def with_noise(documents: Iterable[Document], config: NoiseConfig) -> list[Document]:
    """Returns the documents with blocks of noise between their lines; the same for any order of the documents."""
    return [_mixed(document, config) for document in documents]


def _mixed(document: Document, config: NoiseConfig) -> Document:
    dice = random.Random(f"{config.seed}/{document.doc_id}")
    lines = [line for line in document.text.split("\n") if line.strip()]
    blocks: list[list[tuple[str, str]]] = []
    for kind, ratio in ((BOILERPLATE, config.boilerplate), (JUNK, config.junk)):
        left = ratio * len(document.text)
        while left > 0 and lines:
            size = min(BLOCK_CHARS, left)
            if size < BLOCK_CHARS and dice.random() > size / BLOCK_CHARS:
                break  # whole blocks only; right on average
            blocks.append([(line, kind) for line in _block(kind, lines, dice)])
            left -= BLOCK_CHARS
    out: list[list[tuple[str, str]]] = [[(line, CLEAN)] for line in lines]
    for block in blocks:
        out.insert(dice.randrange(len(out) + 1), block)
    flat = [item for block in out for item in block]
    return replace(document, text="\n".join(line for line, _ in flat), kinds=tuple(kind for _, kind in flat))


def _block(kind: str, lines: Sequence[str], dice: random.Random) -> list[str]:
    if kind == BOILERPLATE:
        block: list[str] = []
        while sum(map(len, block)) < BLOCK_CHARS:
            block.append(_filled(dice.choice(TEMPLATES), dice))
        return block
    words = [word for line in lines for word in line.split()] or ["word"]
    make = dice.choice((_word_salad, _scrambled_words, _character_noise))
    return [make(words, dice)]


def _filled(template: str, dice: random.Random) -> str:
    return template.format(
        year=dice.randrange(2015, 2025),
        site=dice.choice(SITES),
        day=dice.choice(DAYS),
        month=dice.choice(MONTHS),
        n=dice.randrange(2, 30),
        few=dice.randrange(2, 9),
    )


def _word_salad(words: Sequence[str], dice: random.Random) -> str:
    return _until(lambda: dice.choice(words))


def _scrambled_words(words: Sequence[str], dice: random.Random) -> str:
    return _until(lambda: "".join(dice.sample(word := dice.choice(words), len(word))))


def _character_noise(_words: Sequence[str], dice: random.Random) -> str:
    return _until(lambda: "".join(dice.choices(CHARACTERS, k=dice.randrange(3, 12))))


def _until(word: Callable[[], str]) -> str:
    made: list[str] = []
    size = 0
    while size < BLOCK_CHARS:
        made.append(word())
        size += len(made[-1]) + 1
    return " ".join(made)
