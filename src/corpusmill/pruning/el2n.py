"""EL2N: the mean L2 norm of (softmax - one-hot) per token, alone and averaged over an ensemble.

The sums come from `corpusmill.pruning.one_pass`, in the same forward pass as perplexity. Low means easy, or learned
early; the range is [0, sqrt(2)].

Source: "When Less is More" (arXiv 2309.04564v1), equation 6 and section 4.5.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from corpusmill.errors import ConfigError
from corpusmill.pruning.perplexity import Floats, per_token


def mean_el2n(el2n_sum: ArrayLike, n_scored: ArrayLike) -> Floats:
    """Returns EL2N per scored token in [0, sqrt(2)], NaN where no token was scored."""
    return per_token(el2n_sum, n_scored)


def ensemble_el2n(per_model: Sequence[ArrayLike]) -> Floats:
    """Returns the mean of the models' EL2N scores (of the scores, not of the probabilities).

    Args:
        per_model: One array of scores per model, all over the same units in the same order.

    Raises:
        ConfigError: No model was given, or the arrays differ in length.
    """
    scores = [np.asarray(values, dtype=np.float64) for values in per_model]
    shapes = {values.shape for values in scores}
    if len(shapes) != 1:
        raise ConfigError(
            f"ensemble_el2n got score arrays of shapes {sorted(shapes)}; expected one shape, at least once"
        )
    return np.mean(np.stack(scores), axis=0)
