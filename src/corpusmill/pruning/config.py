"""Settings of scoring and selection; light enough for a DAG file to import at parse time."""

from fractions import Fraction
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from corpusmill.config import StageConfig

Metric = Literal["perplexity", "el2n", "top_k", "memorization"]
Which = Literal["bottom", "middle", "top"]
Mode = Literal["rank", "threshold", "sample", "cutoffs"]
Weight = Literal["rows", "n_tokens", "n_scored", "n_bytes"]


class FurtherModel(StageConfig):
    """A reference model beside the main one; a checkpoint in the middle of a training is a model like any other."""

    model: str
    """A folder with safetensors, a Hugging Face id, ``bundled:NAME``, or a registered model."""
    revision: str | None = None
    """Commit, tag or branch of a Hugging Face model, for instance the revision of an early checkpoint."""
    sha256: str | None = None
    """Expected `corpusmill.modeling.load.model_sha256` of the model folder; None does not check."""

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: Any) -> Any:
        return {"model": value} if isinstance(value, str) else value


class ScoringConfig(StageConfig):
    """How documents or packed sequences are scored by one reference model, or several with one tokenizer."""

    model: str = "bundled:reference_lm"
    """Reference model: a folder with safetensors, a Hugging Face id, or ``bundled:NAME`` (ships with this package)."""
    revision: str | None = None
    """Commit of a Hugging Face model; None takes what its main branch is now. Pin it: the score depends on it."""
    sha256: str | None = None
    """Expected `corpusmill.modeling.load.model_sha256` of the model folder; None does not check."""
    metrics: tuple[Metric, ...] = ("perplexity", "el2n")
    """Scores to compute. The first three and the greedy-hit count come from one forward pass, and what is not asked for
    costs nothing; memorization decodes where the pass does not settle it. ``memorization`` alone reads only the first
    ``mem_prompt + mem_continuation`` tokens."""
    top_k: int = Field(default=10, ge=1)
    """k of ``top_k``: a token is a hit where fewer than k others have a larger logit (lower ids win ties)."""
    ensemble: tuple[FurtherModel, ...] = ()
    """Further models whose EL2N is averaged with the main model's: other seeds, or early checkpoints (the paper's
    section 4.5 averages ten). Scores are averaged, not probabilities. All must have the main model's tokenizer."""
    baseline: FurtherModel | None = None
    """Second model of the excess loss: NLL under ``model`` less NLL under this one, for instance one that was trained
    on the crawl. It must have the main model's tokenizer."""
    unit: Literal["document", "sequence"] = "document"
    """What one score row describes: a document with its text, or a packed sequence of token ids (the paper's unit).
    Sums are stored, so windows of a document add up exactly."""
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
    token_budget: int | None = Field(default=None, ge=2)
    """Positions in one forward pass, padding included; halved by itself when memory runs out. None takes 16,384 on a
    GPU or for memorization, else 1,024: on a CPU more is no faster and takes more memory."""
    head_chunk: int = Field(default=1024, ge=1)
    """Positions whose logits are computed at one time. On a GPU memory is about this many times the vocabulary times 4
    bytes; on a CPU the vocabulary too is taken in parts, or for ``top_k`` fewer positions."""
    mem_prompt: int = Field(default=32, ge=1)
    """M: tokens of prompt of the memorization score (Biderman et al. 2023: 32)."""
    mem_continuation: int = Field(default=32, ge=1)
    """N: greedily decoded tokens that are compared (Biderman et al. 2023: 32)."""
    memorization_threshold: float | None = Field(default=None, gt=0, le=1)
    """Asks only whether memorization reaches this share. ``memorized`` then says so for every row, many are settled
    without decoding, and ``memorization`` is null where its exact value was not needed. None computes it for all."""

    @model_validator(mode="after")
    def _metrics_fit(self) -> Self:
        if not self.metrics:
            raise ValueError(
                "metrics=() asks for no score; expected at least one of perplexity, el2n, top_k, memorization"
            )
        needs = (("ensemble", self.ensemble, "el2n"), ("baseline", self.baseline, "perplexity"))
        for name, given, metric in needs:
            if given and metric not in self.metrics:
                raise ValueError(f"{name}={given!r} needs {metric!r} among metrics, which are {self.metrics}; add it")
        if self.memorization_threshold is not None and "memorization" not in self.metrics:
            raise ValueError(
                f"memorization_threshold={self.memorization_threshold} needs 'memorization' among metrics, which are "
                f"{self.metrics}; add it"
            )
        return self

    @model_validator(mode="after")
    def _memorization_fits(self) -> Self:
        need = self.mem_prompt + self.mem_continuation + (self.prefix == "eod")
        if "memorization" in self.metrics and self.context is not None and need > self.context:
            raise ValueError(
                f"mem_prompt {self.mem_prompt} + mem_continuation {self.mem_continuation} do not fit in a context of "
                f"{self.context} tokens; raise context or lower one of them"
            )
        return self


class SelectionConfig(StageConfig):
    """Which scored documents are kept."""

    column: str = "bits_per_byte"
    """Score to order by: mean_nll, perplexity (ordered by mean_nll: the same order, no overflow), bits_per_byte, el2n,
    memorization, teacher_forced_accuracy, top_k_hit_rate, excess_nll, random, or any numeric column of the score
    table."""
    fraction: str = "1/2"
    """Share of the scored documents' weight to keep, in [0, 1], exact: ``"3/10"`` or ``"0.3"``."""
    which: Which = "middle"
    """Part of the order that is kept: the lowest scores, those around the median rank, or the highest."""
    mode: Mode = "rank"
    """``rank`` keeps exactly round_half_up(n * fraction); ``threshold`` is the paper's percentiles, inclusive, and
    keeps more where scores tie; ``sample`` draws that many without replacement, high (``top``) or low (``bottom``)
    scores more often; ``cutoffs`` applies a frozen manifest."""
    weight: Weight = "rows"
    """What the fraction is a share of: ``rows`` (each document or sequence counts as one), or a column of the score
    table: ``n_tokens`` (30 % means 30 % of the tokens), ``n_scored`` or ``n_bytes``. Each end of the kept range is the
    edge between two rows that is nearest to its exact place, half way the upper one."""
    temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    """Of ``sample``: a row is drawn in proportion to exp(z / temperature), z its score in standard deviations over the
    crawl (arXiv 2402.09739, which uses 1 and 2). 0 is ``rank``; the larger, the nearer to ``column: random``."""
    percentile: Literal["linear", "inverted_cdf"] = "linear"
    """Percentile method of ``threshold`` (numpy's names). Only ``inverted_cdf`` gives equal sets for perplexity and
    mean NLL; the paper names none."""
    by: tuple[str, ...] = ()
    """Columns that split the documents into strata, such as ``language``, ``domain`` (the registered domain of the URL)
    or ``crawl``; the fraction holds in each stratum. () is one stratum."""
    seed: int = 0
    """Seed of the tie-break hash, of the random score and of a sample's noise."""
    cutoffs: str | dict[str, Any] | None = None
    """For ``cutoffs``: ``crawl:CC-MAIN-2024-10`` (what this recipe selected of that crawl, from ``ops.cutoffs``), the
    path of a manifest's JSON file, its JSON text, or the mapping itself."""
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

    @model_validator(mode="after")
    def _mode_can_do_that(self) -> Self:
        if self.mode == "sample" and self.which == "middle":
            raise ValueError(
                "mode='sample' with which='middle': a sample prefers high scores ('top') or low ones ('bottom'); for "
                "the middle use mode 'rank'"
            )
        if self.mode == "threshold" and self.weight != "rows" and self.percentile == "linear":
            raise ValueError(
                f"mode='threshold' with weight={self.weight!r}: between two rows of different weight there is nothing "
                "to interpolate; use percentile 'inverted_cdf', or mode 'rank'"
            )
        if self.temperature != 1.0 and self.mode != "sample":
            raise ValueError(f"temperature={self.temperature} with mode={self.mode!r}: only mode 'sample' has one")
        return self

    @property
    def keep(self) -> Fraction:
        """The exact share to keep."""
        return Fraction(self.fraction)
