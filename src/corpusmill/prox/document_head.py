"""Keep or drop of whole documents: one logistic regression over dense features and hashed words of a text.

No neural model: on people's labels nothing larger did better (docs/how-to/refiner-quality.md). The dense features are
standardised, the words weighted by tf-idf; each part has a ridge of its own, since there are 90 of the one and 16,384
of the other. It is fitted in the space of the documents (at most some hundred), where it takes tenths of a second.
A head of the first version reads the dense features of layout alone, and such heads still load.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from corpusmill.errors import ConfigError
from corpusmill.prox.document_features import (
    DOCUMENT_FEATURES,
    N_WORD_BUCKETS,
    STYLE_FEATURES,
    DocumentFeatures,
)

_N_DENSE = len(DOCUMENT_FEATURES) + len(STYLE_FEATURES)
_NEWTON_STEPS = 30
Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class DocumentHead:
    """p(drop) of a document.

    Attributes:
        mean: float64 (features,), mean of each dense feature in training; one entry for each of `DOCUMENT_FEATURES`, or
            for these and `STYLE_FEATURES`.
        scale: float64 (features,), standard deviation, at least 1e-3.
        weights: float64 (features,), of the dense features in standard deviations, clipped to +-4.
        bias: Logit of an average document without words.
        threshold: Drop at this probability and above.
        word_scale: float64 (N_WORD_BUCKETS,), inverse document frequency of each bucket of words, 0 for one that fewer
            than two documents had; None: no words are read.
        word_weights: float64 (N_WORD_BUCKETS,), or None.
    """

    mean: Array
    scale: Array
    weights: Array
    bias: float
    threshold: float
    word_scale: Array | None = None
    word_weights: Array | None = None

    def p_drop(self, features: DocumentFeatures) -> float:
        """Returns the probability in [0, 1] that the document should be dropped."""
        dense = standardise(features.dense[: len(self.mean)], self.mean, self.scale)
        logit = float(dense @ self.weights) + self.bias
        if self.word_scale is not None and self.word_weights is not None:
            values = features.counts * self.word_scale[features.buckets]
            logit += float(values @ self.word_weights[features.buckets]) / (float(np.linalg.norm(values)) + 1e-9)
        return float(1.0 / (1.0 + np.exp(-np.clip(logit, -40, 40))))

    def tensors(self) -> dict[str, npt.NDArray[np.float32]]:
        """Returns the arrays that are stored beside the network's weights; the threshold stands in the config."""
        arrays = {"mean": self.mean, "scale": self.scale, "weights": self.weights, "bias": np.array([self.bias])}
        if self.word_scale is not None and self.word_weights is not None:
            arrays |= {"word_scale": self.word_scale, "word_weights": self.word_weights}
        return {name: array.astype(np.float32) for name, array in arrays.items()}

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, npt.NDArray[np.float32]], threshold: float | None
    ) -> "DocumentHead | None":
        """Returns the stored head, or None where a model has none.

        Raises:
            ValueError: The arrays do not have one entry for each feature or bucket.
        """
        if not tensors or threshold is None:
            return None
        mean, scale, weights = (tensors[name].astype(np.float64) for name in ("mean", "scale", "weights"))
        sizes = {array.shape for array in (mean, scale, weights)}
        if sizes not in ({(len(DOCUMENT_FEATURES),)}, {(_N_DENSE,)}):
            raise ValueError(f"document head has shapes {sizes}, expected {(_N_DENSE,)} or {(len(DOCUMENT_FEATURES),)}")
        words = [tensors[name].astype(np.float64) for name in ("word_scale", "word_weights") if name in tensors]
        if words and [array.shape for array in words] != [(N_WORD_BUCKETS,)] * 2:
            raise ValueError(f"document head has word shapes {[w.shape for w in words]}, expected {(N_WORD_BUCKETS,)}")
        bias = float(tensors["bias"][0])
        return cls(mean, scale, weights, bias, float(threshold), *(words or (None, None)))


def standardise(features: Array, mean: Array, scale: Array) -> Array:
    """Returns features as deviations from the training mean, clipped so that an odd page cannot run away; nan is 0."""
    return np.nan_to_num(np.clip((features - mean) / scale, -4.0, 4.0))


def fit_document_head(
    documents: Sequence[DocumentFeatures],
    dropped: npt.NDArray[np.bool_],
    *,
    penalty: float,
    word_penalty: float,
    threshold: float,
    weight: Array | None = None,
) -> DocumentHead:
    """Returns the head that minimises weighted log loss plus half the ridges times the squared weights (Newton steps).

    Args:
        documents: Features of each document.
        dropped: (documents,), True where the document should be dropped.
        penalty: Ridge of the weights of dense features, in documents.
        word_penalty: Ridge of the weights of words, in documents.
        threshold: Stored with the head.
        weight: Weight of each document; None: 1.

    Raises:
        ConfigError: All documents have the same label.
    """
    if dropped.all() or not dropped.any():
        raise ConfigError(f"all {len(dropped)} documents have the same label; expected both kept and dropped ones")
    weight = np.ones(len(dropped)) if weight is None else weight
    dense = np.stack([document.dense for document in documents])
    known = ~np.isnan(dense)
    n_known = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, dense, 0.0).sum(axis=0) / n_known
    deviation = np.where(known, dense - mean, 0.0)
    scale = np.maximum(np.sqrt((deviation**2).sum(axis=0) / n_known), 1e-3)
    design = standardise(dense, mean, scale)
    word_scale, words = _weighted_words(documents)
    kernel = design @ design.T / penalty + (words @ words.T).astype(np.float64) / word_penalty
    alpha, bias = _dual_fit(kernel, dropped, weight)
    weights, word_weights = design.T @ alpha / penalty, (words.T @ alpha).astype(np.float64) / word_penalty
    return DocumentHead(mean, scale, weights, bias, threshold, word_scale, word_weights)


def _weighted_words(documents: Sequence[DocumentFeatures]) -> tuple[Array, npt.NDArray[np.float32]]:
    """Returns inverse document frequencies (buckets,) and tf-idf rows of length 1 (documents, buckets)."""
    words = np.zeros((len(documents), N_WORD_BUCKETS), dtype=np.float32)
    for row, document in zip(words, documents, strict=True):
        row[document.buckets] = document.counts
    frequency = (words > 0).sum(axis=0)
    scale = np.where(frequency >= 2, np.log(len(documents) / np.maximum(frequency, 1)), 0.0)
    words *= scale.astype(np.float32)
    words /= np.linalg.norm(words, axis=1, keepdims=True) + 1e-9
    return scale, words


def _dual_fit(kernel: Array, dropped: npt.NDArray[np.bool_], weight: Array) -> tuple[Array, float]:
    """Returns each document's share in the weights, (documents,), and the bias.

    The weights that minimise the loss are sums over documents (the representer theorem), so that the Newton steps are
    taken on an orthogonal basis of the kernel.
    """
    values, vectors = np.linalg.eigh(kernel)
    kept = values > 1e-9 * values[-1]
    basis = vectors[:, kept] / np.sqrt(values[kept])
    design = np.concatenate([kernel @ basis, np.ones((len(dropped), 1))], axis=1)
    ridge = np.eye(design.shape[1])
    ridge[-1, -1] = 1e-6
    beta = np.zeros(design.shape[1])
    for _ in range(_NEWTON_STEPS):
        p = 1.0 / (1.0 + np.exp(-np.clip(design @ beta, -40, 40)))
        gradient = design.T @ (weight * (p - dropped)) + ridge @ beta
        hessian = (design * (weight * np.maximum(p * (1 - p), 1e-6))[:, None]).T @ design + ridge
        step = np.linalg.solve(hessian, gradient)
        beta -= step
        if np.abs(step).max() < 1e-6:
            break
    return basis @ beta[:-1], float(beta[-1])
