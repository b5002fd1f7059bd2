"""How often a training run of a given length reads a pruned corpus, and when that is too often.

Pruning trades fresh tokens for better ones. Repeating data about four times costs next to nothing; beyond that a
smaller corpus loses to a larger, less strictly selected one.

Sources: Muennighoff et al. (arXiv 2305.16264): up to about 4 epochs are nearly as good as fresh data; Goyal et al.
(arXiv 2404.07177): the best filter depends on the budget, as repeated data loses its value.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from corpusmill.errors import ConfigError

MAX_EPOCHS = 4
"""Epochs beyond which repeated tokens are worth visibly less than fresh ones."""


@dataclass(frozen=True)
class EpochPlan:
    """What a token budget means for a corpus.

    Attributes:
        kept_tokens: Tokens of the corpus.
        budget: Tokens that training will read.
    """

    kept_tokens: int
    budget: int

    @property
    def epochs(self) -> Fraction:
        """Times that training reads each token on average."""
        return Fraction(self.budget, self.kept_tokens)

    @property
    def tokens_needed(self) -> int:
        """Smallest corpus that the budget repeats at most `MAX_EPOCHS` times."""
        return -(-self.budget // MAX_EPOCHS)

    @property
    def warning(self) -> str | None:
        """What to do where tokens are repeated too often, else None."""
        if self.epochs <= MAX_EPOCHS:
            return None
        return (
            f"{self.budget:,} tokens of training read the {self.kept_tokens:,} kept tokens {float(self.epochs):.1f} "
            f"times; beyond {MAX_EPOCHS} epochs repeated tokens are worth less than fresh ones (arXiv 2305.16264, "
            f"2404.07177): keep at least {self.tokens_needed:,} tokens (a larger fraction or more crawls), or train "
            f"on at most {MAX_EPOCHS * self.kept_tokens:,}"
        )

    def to_json(self) -> dict[str, Any]:
        """Returns a plain mapping."""
        return {
            "budget": self.budget,
            "kept_tokens": self.kept_tokens,
            "epochs": round(float(self.epochs), 4),
            "tokens_needed": self.tokens_needed,
            "warning": self.warning,
        }


def plan_epochs(kept_tokens: int, budget: int) -> EpochPlan:
    """Returns how often a budget repeats a corpus; tokens of both must be those of the model that will be trained.

    Args:
        kept_tokens: Tokens of the pruned corpus, at least 1.
        budget: Tokens that training will read, at least 1.

    Raises:
        ConfigError: One of them is below 1.
    """
    for name, value in (("kept_tokens", kept_tokens), ("budget", budget)):
        if value < 1:
            raise ConfigError(f"{name}={value} is below 1; expected a number of tokens, as there is nothing to plan")
    return EpochPlan(kept_tokens, budget)


def token_count(text: str) -> int:
    """Returns a number of tokens from text such as ``7600000000``, ``7.6e9``, ``7_600M`` or ``7.6B``.

    Raises:
        ConfigError: It is no whole number of tokens.
    """
    number, scale = text.strip().replace("_", "").replace(",", ""), 1
    if number[-1:].upper() in SCALES:
        number, scale = number[:-1], SCALES[number[-1].upper()]
    try:
        value = Fraction(number) * scale
    except (ValueError, ZeroDivisionError):
        value = Fraction(1, 2)
    if value.denominator != 1:
        raise ConfigError(f"{text!r} is not a number of tokens; expected for instance 7600000000, 7.6e9 or 7.6B")
    return int(value)


SCALES = {"K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
"""Letters that a number of tokens may end with."""
