"""Settings of annotation and synthesis: a domain, a teacher, and the checks; light enough for DAG files.

A new domain is a new `DomainConfig` and nothing else.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from corpusmill.config import StageConfig


class DomainConfig(StageConfig):
    """What the prompts say about the texts that are wanted."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")] = "general"
    """Short name, for tables and file names."""
    description: str = "general knowledge, explanation and discussion on any topic"
    """What texts of this domain are about; completes "We collect texts for a corpus on ..."."""
    valuable: str = "the title, continuous prose, headings, lists, tables and quotations that belong to the main text"
    """What must survive refining; completes "Keep ..."."""
    instructions: str = ""
    """Further instructions for the teacher, in whole sentences; "" for none."""


class TeacherConfig(StageConfig):
    """Which large model annotates, and how it is asked."""

    kind: Literal["endpoint", "local"] = "endpoint"
    """``endpoint``: behind an OpenAI-compatible chat server; ``local``: a causal language model in this process."""
    model: str
    """Name on the server; for ``local`` a folder or hub id."""
    endpoint: str | None = None
    """For ``endpoint``: base URL or the name of an endpoint from the environment; keys never stand in settings."""
    revision: str | None = None
    """Hub revision of a ``local`` model."""
    max_new_tokens: Annotated[int, Field(ge=16)] = 4096
    """Tokens of an answer at most. A rewrite is as long as its window; an answer that was cut is rejected."""
    seed: int | None = 0
    """Seed for servers that take one; decoding is greedy all the same."""
    max_concurrency: Annotated[int, Field(ge=1)] | None = None
    """Requests in flight; None: as the endpoint says."""
    requests_per_minute: Annotated[float, Field(gt=0)] | None = None
    """Requests a minute; None: as the endpoint says."""
    prompt_price: Annotated[float, Field(ge=0)] | None = None
    """Price of a million prompt tokens, in any currency; None: no cost is reported."""
    completion_price: Annotated[float, Field(ge=0)] | None = None
    """Price of a million completion tokens, in the same currency."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Weights and activations of a ``local`` model."""
    device: str = "auto"
    """Torch device of a ``local`` model."""
    batch_tokens: Annotated[int, Field(ge=1)] = 16_384
    """Padded tokens per forward pass of a ``local`` model."""
    batch_requests: Annotated[int, Field(ge=1)] = 32
    """Requests that a ``local`` model answers before they are stored: what a kill can lose."""

    @model_validator(mode="after")
    def _has_an_endpoint(self) -> "TeacherConfig":
        if self.kind == "endpoint" and self.endpoint is None:
            raise ValueError("a teacher of kind 'endpoint' needs endpoint (a URL, or the name of one)")
        return self


class AnnotationConfig(StageConfig):
    """How documents become prompts. Two runs with equal settings ask equal questions and share their answers."""

    domain: DomainConfig = DomainConfig()
    """What the texts are."""
    window_characters: Annotated[int, Field(ge=200)] = 12_000
    """Characters that a teacher reads at once, each line counted with its number; longer documents are cut into
    windows of whole lines. RefineX used 12k (arXiv 2507.03253)."""
    window_lines: Annotated[int, Field(ge=2)] = 400
    """Lines that a teacher reads at once."""
    max_document_characters: Annotated[int, Field(ge=200)] = 400_000
    """A longer document is not annotated (``document_too_long``)."""
    retry_failed: bool = False
    """Ask again what failed for good in an earlier run."""
    max_error_fraction: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of the requests that may fail for good before annotation fails."""


class SynthesisConfig(StageConfig):
    """How answers and references become examples, and which are refused."""

    annotation: AnnotationConfig = AnnotationConfig()
    """As annotated: prompts are rendered again to find their answers."""
    example_characters: Annotated[int, Field(ge=50)] = 6000
    """Characters of an example's lines at most, each counted with its number: about the 1,500 tokens of a refiner's
    window. One longer line is an example of its own."""
    example_lines: Annotated[int, Field(ge=1)] = 400
    """Lines of an example at most."""
    max_removed_share: Annotated[float, Field(ge=0, le=1)] = 0.95
    """A label that removes at least this share of a document's words is refused (``removes_too_much``), as the executor
    would; not applied to people's labels. The paper filters by this share too and does not publish its value."""
    min_removed_characters: Annotated[int, Field(ge=0)] = 8
    """Route ``rewrite``: an edit of fewer characters in all is refused as noise (``tiny_edit``); no edit is a keep."""
    max_inserted_share: Annotated[float, Field(ge=0, le=1)] = 0.02
    """Route ``rewrite``: share of the rewrite's tokens that may be the teacher's own before the window is refused
    (``inserts_text``); below it the insertions are ignored and their lines are unsure."""
    max_undone_share: Annotated[float, Field(ge=0, le=1)] = 0.2
    """Share of the characters to be removed that no strict program can remove (a string that is not unique in its
    window) before the example is refused (``ambiguous_edit``); below it the lines are unsure."""
    extractor: Literal["trafilatura", "resiliparse"] = "trafilatura"
    """Route ``extractor``: whose main content is the reference."""
    min_reference_tokens: Annotated[int, Field(ge=1)] = 40
    """Routes ``gold`` and ``extractor``: a shorter reference says too little (``reference_short``)."""
    min_reference_found: Annotated[float, Field(ge=0, le=1)] = 0.85
    """Share of the reference that must be found on the page, else they do not belong together."""
    max_unsure_share: Annotated[float, Field(ge=0, le=1)] = 0.15
    """Share of a page's tokens that may be unsure after alignment."""
