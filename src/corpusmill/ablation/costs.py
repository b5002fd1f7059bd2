"""What an arm costs, counted as both papers count it, and from where on pruning pays.

Sources: "Programming Every Example" (arXiv 2409.17115), section 5: 6 N D to train, 2 N D to read. "When Less is More"
(arXiv 2309.04564v1) trains every arm for equal steps, so what pruning must save is its scoring.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corpusmill.modeling.flops import TRAINING, BreakEven, affordable_tokens, training_flops


@dataclass(frozen=True)
class Costs:
    """Operations of one run.

    Attributes:
        training: Of the student; 0 for a trigram.
        selecting: Of scoring or refining the pool, once; None where nobody knows (a served model of unknown size).
        reference: Of training the reference models, once for any number of pools.
    """

    training: float
    selecting: float | None
    reference: float

    def as_dict(self) -> dict[str, float | None]:
        """Returns the fields and their sum, which is unknown where a part is."""
        known = self.selecting is not None
        return {
            "training_flops": self.training,
            "selecting_flops": self.selecting,
            "reference_flops": self.reference,
            "total_flops": self.training + (self.selecting or 0.0) + self.reference if known else None,
        }


def step_reaching(curve: Sequence[Mapping[str, float]], test: str, nll: float) -> float | None:
    """Returns the first measured step at which a test loss is at most ``nll``, None where it never is."""
    return next((point["step"] for point in curve if point.get(test, float("inf")) <= nll), None)


def break_even(
    n_student: float,
    step_tokens: float,
    baseline_steps: float,
    reached_at: float | None,
    selecting: float | None,
) -> dict[str, Any] | None:
    """Returns what selecting and training cost until the loss of training on all, against training on all.

    Args:
        n_student: Parameters of the student without embeddings.
        step_tokens: Tokens of an optimiser step.
        baseline_steps: Steps of the arm with all of the pool.
        reached_at: Step at which the arm reaches that arm's final loss; None: it never does.
        selecting: Operations of scoring or refining; None where nobody knows.

    Returns:
        None for a student without parameters and for unknown operations, else
        ``ratio`` of both totals (below 1 pruning pays; None where the loss is never reached), ``saved_tokens``,
        ``scoring_in_training_tokens`` (tokens of training that cost as much as selecting), and ``n_break_even``: the
        student's size from which on the saved tokens pay for selecting.
    """
    if n_student <= 0 or selecting is None:
        return None
    tokens = affordable_tokens(n_student, selecting)
    if reached_at is None:
        return {"ratio": None, "saved_tokens": None, "scoring_in_training_tokens": tokens, "n_break_even": None}
    saved = (baseline_steps - reached_at) * step_tokens
    totals = BreakEven(
        training_flops(n_student, baseline_steps * step_tokens),
        training_flops(n_student, reached_at * step_tokens) + selecting,
    )
    return {
        "ratio": totals.ratio,
        "saved_tokens": saved,
        "scoring_in_training_tokens": tokens,
        "n_break_even": selecting / (TRAINING * saved) if saved > 0 else None,
    }
