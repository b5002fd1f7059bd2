"""Settings of the two ProX refinement stages.

Source: "Programming Every Example" (arXiv 2409.17115) and the defaults of its released code.
"""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from corpusmill.config import StageConfig, fingerprint
from corpusmill.prox.refinement_alarms import RefinementAlarms

PUBLIC_REFINERS = "gair-prox/"
"""Hub organisation of the published refiners, whose programs run in compat mode by default."""

OUTPUT_VERSION = 2
"""Raised when code that makes prompts or decodes changes what a refiner writes: then nothing stored is taken."""

Backend = Literal["transformers", "vllm", "completions", "labeller", "writer", "scripted"]
"""What runs a refiner."""


class RefinerConfig(StageConfig):
    """What both refinement stages share: which model, how it is fed, where it runs."""

    # Fields that change speed or place, never a decision beyond the stated float tolerance.
    not_in_fingerprint: ClassVar[frozenset[str]] = frozenset(
        {"device", "batch_tokens", "max_error_fraction", "endpoint", "reuse_stored", "alarms"}
    )
    # Fields that change what is done with an output, never the output: stored outputs serve any value of them.
    execution_policy: ClassVar[frozenset[str]] = frozenset()

    backend: Backend = "transformers"
    """``transformers``: any causal language model in this process; ``vllm``: the same through vLLM in this process
    (installed separately); ``completions``: a model behind an OpenAI-compatible server; ``labeller`` and ``writer``:
    the line labeller and the program writer of this project; ``scripted``: fixed answers from a JSON file, for tests
    and dry runs."""
    model: str
    """Model folder, hub id, or ``bundled:NAME``; for ``scripted`` a folder with ``script.json``. For ``completions``
    the folder or hub id of the tokenizer too."""
    endpoint: str | None = None
    """For ``completions``: base URL (``http://host:8000/v1``) or the name of an endpoint from the environment
    (`corpusmill.modeling.completions.resolve_endpoint`); keys never stand in a recipe."""
    served_name: str | None = None
    """For ``completions``: the model's name on the server; None: ``model``."""
    reuse_stored: bool = True
    """Take outputs that this refiner wrote for the same text from the tables; only other texts reach the model."""
    revision: str | None = None
    """Hub revision (branch, tag or commit); give a commit to pin it. None: the hub's default branch."""
    sha256: str | None = None
    """Expected digest of a local model folder (`corpusmill.prox.refiner.folder_digest`); None: not checked."""
    mode: Literal["strict", "compat"] | None = None
    """How output is parsed and executed. None: ``compat`` for ``gair-prox/*``, ``strict`` for all others."""
    prompt_ids: Literal["compat", "sft"] = "compat"
    """Token ids around the prompt: ``compat`` as the official inference code, ``sft`` as at training (one BOS)."""
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Weights and activations. The official pipeline ran in float16; a CPU wants float32."""
    device: str = "auto"
    """Torch device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto`` for the first GPU, else the CPU."""
    batch_tokens: Annotated[int, Field(ge=1)] = 16_384
    """Padded tokens per forward pass at most; one sequence longer than that runs alone."""
    threshold: Annotated[float, Field(ge=0.0, le=1.0)] | None = None
    """Document stage: drop at p(drop)/(p(drop)+p(keep)) of at least this; None: the more probable token wins.
    Labeller: remove at this probability and above; None: the threshold stored with the model."""
    max_error_fraction: Annotated[float, Field(ge=0.0, le=1.0)] = 0.05
    """Share of a shard's documents that may fail (``error.*``) before the shard fails. Published failure rates are
    0.04 % (documents) and 0.36 % (chunks), arXiv 2409.17115 appendix."""

    alarms: RefinementAlarms = RefinementAlarms()
    """Shares beyond which the run warns that a refiner does not work as it should."""

    def fingerprint(self) -> str:
        """Returns 16 hex digits over the fields that can change a decision (all but ``not_in_fingerprint``)."""
        return fingerprint(self.model_dump(mode="json", exclude=set(self.not_in_fingerprint)))

    def output_fingerprint(self) -> str:
        """Returns 16 hex digits over the fields that can change what the refiner writes, the execution policy apart.

        The model's place is left out: its content is identified by digest or revision beside this.
        """
        apart = self.not_in_fingerprint | self.execution_policy | {"model", "sha256"}
        return fingerprint([OUTPUT_VERSION, self.model_dump(mode="json", exclude=set(apart))])

    @property
    def execution_mode(self) -> Literal["strict", "compat"]:
        """The mode that runs: as set, else compat for the public refiners and strict for all others."""
        if self.mode is not None:
            return self.mode
        return "compat" if self.model.startswith(PUBLIC_REFINERS) else "strict"


class DocRefinementConfig(RefinerConfig):
    """Settings of the document stage: one model decides whether a document stays."""

    # A threshold is applied to the stored margin again.
    execution_policy: ClassVar[frozenset[str]] = frozenset({"mode", "threshold"})

    max_prompt_tokens: Annotated[int, Field(ge=8)] = 2000
    """Ids of the rendered prompt; in ``compat`` the prompt is cut on the right, in ``sft`` only its content is."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 48
    """New tokens where the first one does not decide; 48 is what the official code has left of its 2048 context."""


class ChunkRefinementConfig(RefinerConfig):
    """Settings of the chunk stage: a model writes an editing program for each window of lines."""

    not_in_fingerprint: ClassVar[frozenset[str]] = RefinerConfig.not_in_fingerprint | {"drafting"}
    execution_policy: ClassVar[frozenset[str]] = frozenset(
        {"mode", "min_words", "max_removed", "min_kept", "max_errors", "stop_loops", "constrained"}
    )

    max_prompt_tokens: Annotated[int, Field(ge=8)] = 2048
    """A longer prompt is not sent and its chunk stays as it is (``too_long_prompt``), as the official engine did."""
    window_tokens: Annotated[int, Field(ge=1)] = 1500
    """Tokens per window of lines, each line counted with its number and one BOS."""
    max_new_tokens: Annotated[int, Field(ge=1)] = 256
    """New tokens per chunk; 256 hold about 18 ``remove_lines`` calls."""
    drafting: bool = True
    """Guess forced tokens of the grammar and check many in one forward pass: the same output, faster."""
    constrained: bool | None = None
    """Allow only tokens that continue a valid program over the lines shown. None: on for ``writer``, whose output is a
    program by construction, off elsewhere (the public refiners ran without)."""
    stop_loops: bool | None = None
    """Stop a chunk whose program repeats the same call. None: on in strict mode, off in compat."""
    min_words: Annotated[int, Field(ge=0)] = 10
    """A document of at most this many words after execution is dropped (``dropped_min_words``). 0 drops only empty
    documents."""
    max_removed: Annotated[float, Field(ge=0.0, le=1.0)] = 0.95
    """A document that loses at least this share of its words is dropped (``dropped_ratio``)."""
    min_kept: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """A program that keeps less than this share of the words is rejected and the text stays; 0 never rejects."""
    max_errors: Annotated[int, Field(ge=1)] = 2
    """Malformed calls from which on a program is rejected: per document in compat, per chunk in strict mode."""

    @property
    def is_constrained(self) -> bool:
        """Whether decoding runs under the grammar."""
        return self.backend == "writer" if self.constrained is None else self.constrained

    @property
    def stops_loops(self) -> bool:
        """Whether a program that repeats a call is stopped."""
        return self.execution_mode == "strict" if self.stop_loops is None else self.stop_loops

    def output_fingerprint(self) -> str:
        """Returns 16 hex digits over the fields that can change what the refiner writes, the execution policy apart."""
        return fingerprint([super().output_fingerprint(), self.is_constrained, self.stops_loops])
