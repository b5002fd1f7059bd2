"""Keep or drop of whole documents: a logistic regression over dense, language-neutral features of a text.

No neural model: on people's labels a linear model over dense features reaches the same AUC as anything larger that was
tried. None of the features counts the words of one language, so a German page is not dropped for being German.
Every feature is a mean, a share or a logarithm, defined for every text (an empty one gives zeros).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corpusmill.errors import ConfigError
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
"""Names of the features: line scalars averaged over lines and over characters, shares, sizes, word statistics."""
_LONG_LINE, _SHORT_LINE = 200, 40
_SHORT_WORD, _LONG_WORD = 3, 8


def document_features(lines: Sequence[str]) -> npt.NDArray[np.float64]:
    """Returns float64 (len(DOCUMENT_FEATURES),) for a text's lines without the blank ones; zeros for no lines."""
    if not lines:
        return np.zeros(len(DOCUMENT_FEATURES))
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


@dataclass(frozen=True)
class DocumentHead:
    """p(drop) of a document: a logistic regression on standardised features, clipped to +-4 deviations.

    Attributes:
        mean: float64 (features,), mean of each feature in training.
        scale: float64 (features,), standard deviation, at least 1e-3.
        weights: float64 (features,).
        bias: Logit of an average document.
        threshold: Drop at this probability and above.
    """

    mean: npt.NDArray[np.float64]
    scale: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]
    bias: float
    threshold: float

    def p_drop(self, features: npt.NDArray[np.float64]) -> float:
        """Returns the probability in [0, 1] that the document should be dropped."""
        logit = standardise(features, self.mean, self.scale) @ self.weights + self.bias
        return float(1.0 / (1.0 + np.exp(-np.clip(logit, -40, 40))))

    def tensors(self) -> dict[str, npt.NDArray[np.float32]]:
        """Returns the arrays that are stored beside the network's weights; the threshold stands in the config."""
        return {
            "mean": self.mean.astype(np.float32),
            "scale": self.scale.astype(np.float32),
            "weights": self.weights.astype(np.float32),
            "bias": np.array([self.bias], dtype=np.float32),
        }

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, npt.NDArray[np.float32]], threshold: float | None
    ) -> "DocumentHead | None":
        """Returns the stored head, or None where a model has none.

        Raises:
            ValueError: The arrays do not have one entry for each feature.
        """
        if not tensors or threshold is None:
            return None
        mean, scale, weights = (tensors[name].astype(np.float64) for name in ("mean", "scale", "weights"))
        if any(array.shape != (len(DOCUMENT_FEATURES),) for array in (mean, scale, weights)):
            raise ValueError(f"document head has shape {weights.shape}, expected {(len(DOCUMENT_FEATURES),)}")
        return cls(mean, scale, weights, float(tensors["bias"][0]), float(threshold))


def standardise(
    features: npt.NDArray[np.float64], mean: npt.NDArray[np.float64], scale: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Returns features as deviations from the training mean, clipped so that an odd page cannot run away."""
    return np.clip((features - mean) / scale, -4.0, 4.0)


def fit_document_head(
    features: npt.NDArray[np.float64],
    dropped: npt.NDArray[np.bool_],
    *,
    penalty: float,
    threshold: float,
    weight: npt.NDArray[np.float64] | None = None,
) -> DocumentHead:
    """Returns the head that minimises weighted log loss plus ``penalty / 2`` times the squared weights (Newton steps).

    Args:
        features: (documents, features).
        dropped: (documents,), True where the document should be dropped.
        penalty: Strength of the ridge, in documents.
        threshold: Stored with the head.
        weight: Weight of each document; None: 1.

    Raises:
        ConfigError: All documents have the same label.
    """
    if dropped.all() or not dropped.any():
        raise ConfigError(f"all {len(dropped)} documents have the same label; expected both kept and dropped ones")
    weight = np.ones(len(dropped)) if weight is None else weight
    mean, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-3)
    design = np.concatenate([standardise(features, mean, scale), np.ones((len(dropped), 1))], axis=1)
    ridge = np.diag([penalty] * features.shape[1] + [1e-6])
    beta = np.zeros(design.shape[1])
    for _ in range(30):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ beta, -40, 40)))
        gradient = design.T @ (weight * (p - dropped)) + ridge @ beta
        hessian = (design * (weight * np.maximum(p * (1 - p), 1e-6))[:, None]).T @ design + ridge
        step = np.linalg.solve(hessian, gradient)
        beta -= step
        if np.abs(step).max() < 1e-8:
            break
    return DocumentHead(mean, scale, beta[:-1], float(beta[-1]), threshold)
