"""Settings of scoring and selection; light enough for a DAG file to import at parse time."""

from fractions import Fraction
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from corpusmill.config import StageConfig

Metric = Literal["perplexity", "el2n", "memorization"]
Which = Literal["bottom", "middle", "top"]
Mode = Literal["rank", "threshold", "cutoffs"]


class ScoringConfig(StageConfig):
    """How documents are scored by one reference model."""

    model: str = "bundled:reference_lm"
    """Reference model: a folder with safetensors, a Hugging Face id, or ``bundled:NAME`` (ships with this package)."""
    revision: str | None = None
    """Commit of a Hugging Face model; None takes what its main branch is now. Pin it: the score depends on it."""
    sha256: str | None = None
    """Expected `corpusmill.modeling.load.model_sha256` of the model folder; None does not check."""
    metrics: tuple[Metric, ...] = ("perplexity", "el2n")
    """Scores to compute; the first two and the greedy-hit count come from one forward pass, memorization decodes."""
    unit: Literal["document"] = "document"
    """What one score row describes; sums are stored, so windows of a document add up exactly."""
    context: int | None = Field(default=None, ge=2)
    """Tokens in one window, the prefix included; longer documents are cut in windows that do not overlap. None takes
    the number of positions that the model was made for (the paper: 2048)."""
    prefix: Literal["none", "eod"] = "none"
    """``none`` leaves the first token of a window unscored (the paper); ``eod`` feeds the end-of-document token first
    and scores every token of the window."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights and matrix products; the softmax arithmetic is float32 and the sums float64 in any case."""
    device: str = "auto"
    """``auto`` (the first GPU, else the CPU), ``cpu``, ``cuda`` or ``cuda:N``."""
    token_budget: int = Field(default=16_384, ge=2)
    """Positions in one forward pass, padding included; halved by itself when memory runs out."""
    head_chunk: int = Field(default=256, ge=1)
    """Positions whose logits exist at one time; memory is about this many times the vocabulary times 4 bytes."""
    mem_prompt: int = Field(default=32, ge=1)
    """M: tokens of prompt of the memorization score (Biderman et al. 2023: 32)."""
    mem_continuation: int = Field(default=32, ge=1)
    """N: greedily decoded tokens that are compared (Biderman et al. 2023: 32)."""

    @model_validator(mode="after")
    def _memorization_fits(self) -> Self:
        need = self.mem_prompt + self.mem_continuation + (self.prefix == "eod")
        if "memorization" in self.metrics and self.context is not None and need > self.context:
            raise ValueError(
                f"mem_prompt {self.mem_prompt} + mem_continuation {self.mem_continuation} do not fit in a context of "
                f"{self.context} tokens; raise context or lower one of them"
            )
        if not self.metrics:
            raise ValueError("metrics=() asks for no score; expected at least one of perplexity, el2n, memorization")
        return self


class SelectionConfig(StageConfig):
    """Which scored documents are kept."""

    column: str = "bits_per_byte"
    """Score to order by: mean_nll, perplexity (ordered by mean_nll: the same order, no overflow), bits_per_byte, el2n,
    memorization, teacher_forced_accuracy, random, or any numeric column of the score table."""
    fraction: str = "1/2"
    """Share of the scored documents to keep, in [0, 1], exact: ``"3/10"`` or ``"0.3"``."""
    which: Which = "middle"
    """Part of the order that is kept: the lowest scores, those around the median rank, or the highest."""
    mode: Mode = "rank"
    """``rank`` keeps exactly round_half_up(n * fraction); ``threshold`` is the paper's percentiles, inclusive, and
    keeps more where scores tie; ``cutoffs`` applies a frozen manifest."""
    percentile: Literal["linear", "inverted_cdf"] = "linear"
    """Percentile method of ``threshold`` (numpy's names). Only ``inverted_cdf`` gives equal sets for perplexity and
    mean NLL; the paper names none."""
    by: tuple[str, ...] = ()
    """Columns that split the documents into strata; the fraction holds in each stratum. () is one stratum."""
    seed: int = 0
    """Seed of the tie-break hash and of the random score."""
    cutoffs: str | dict[str, Any] | None = None
    """For ``cutoffs``: path of a manifest's JSON file, its JSON text, or the mapping itself."""
    keep_unscored: bool = False
    """True keeps documents that have no score (too short, for instance); they are counted in either case."""

    @field_validator("fraction", mode="before")
    @classmethod
    def _exact_fraction(cls, value: Any) -> str:
        try:
            fraction = value if isinstance(value, Fraction) else Fraction(str(value).strip())
        except (ValueError, ZeroDivisionError) as error:
            raise ValueError(f"{value!r} is not a fraction; expected for instance '3/10' or '0.3'") from error
        if not 0 <= fraction <= 1:
            raise ValueError(f"{value!r} lies outside [0, 1]; expected a share such as '3/10'")
        return str(fraction)

    @model_validator(mode="after")
    def _cutoffs_go_with_their_mode(self) -> Self:
        if (self.mode == "cutoffs") != (self.cutoffs is not None):
            raise ValueError(
                f"mode={self.mode!r} with cutoffs={self.cutoffs!r}: mode 'cutoffs' needs a manifest, others take none"
            )
        return self

    @property
    def keep(self) -> Fraction:
        """The exact share to keep."""
        return Fraction(self.fraction)
