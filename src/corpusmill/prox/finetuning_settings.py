"""Settings of fine-tuning a causal language model to write ProX programs."""

from typing import Annotated, Literal

from pydantic import Field

from corpusmill.config import StageConfig

Task = Literal["document", "chunk"]
"""Which stage the refiner is for."""

PRETRAINED_RATE, SCRATCH_RATE = 1e-5, 1e-3
"""Peak learning rates: the paper's for a pretrained base; a hundred times that for one that has learnt nothing yet."""


class FinetuningSettings(StageConfig):
    """How a program-writing model is fine-tuned; the defaults are the paper's where it names one."""

    learning_rate: Annotated[float, Field(gt=0.0)] | None = None
    """Peak. None: 1e-5 (arXiv 2409.17115 appendix A) for a pretrained base, 1e-3 for one from scratch."""
    final_share: Annotated[float, Field(ge=0.0, le=1.0)] = 0.1
    """The cosine ends at this share of the peak: 1e-5 to 1e-6 in the paper."""
    warmup_steps: Annotated[int, Field(ge=0)] = 20
    """Steps of linear warm-up."""
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    """On matrices only."""
    clip: Annotated[float, Field(gt=0.0)] = 1.0
    """Largest gradient norm."""
    batch_examples: Annotated[int, Field(ge=1)] = 64
    """Examples of an optimiser step (the paper's batch)."""
    batch_tokens: Annotated[int, Field(ge=1)] = 16_384
    """Padded tokens of one forward pass at most; a step's examples are sorted by length and cut by it. It changes
    memory and speed, not what is learnt."""
    first_token_weight: Annotated[float, Field(gt=0.0)] = 5.0
    """Weight of a program's first token in the loss, which decides; later tokens have 1 (ReScraper, 2026)."""
    keep_share: tuple[Annotated[float, Field(gt=0.0, lt=1.0)], Annotated[float, Field(gt=0.0, lt=1.0)]] | None = (
        0.35,
        0.6,
    )
    """Bounds of the share of examples that keep (``keep_chunk``, ``keep_doc``) among those trained on; a mix outside
    is moved to the nearer bound. None: the mix as it is."""
    max_repeats: Annotated[int, Field(ge=1)] = 4
    """The rarer kind is repeated at most so often in an epoch; beyond that the other kind is thinned out."""
    max_document_tokens: Annotated[int, Field(ge=8)] = 2000
    """Ids of a document prompt, less where the base's context asks for it; content is cut, never the frame."""
    window_tokens: Annotated[int, Field(ge=1)] = 1500
    """Tokens of a window of lines, less where the base's context asks for it; as at inference."""
    max_target_tokens: Annotated[int, Field(ge=8)] = 256
    """Ids of a program with its end: what inference writes at most. A window whose program is longer is halved."""
    dev_examples: Annotated[int, Field(ge=1)] = 64
    """Documents or windows of the dev file that are decoded at each evaluation, drawn once."""
    evaluations: Annotated[int, Field(ge=1)] = 6
    """Evaluations over the run, evenly spread; the best one's weights are kept."""
    checkpoint_every: Annotated[int, Field(ge=1)] = 100
    """Steps between two checkpoints for resuming; each evaluation writes one too."""
    n_vocab: Annotated[int, Field(ge=300)] = 8192
    """Ids of the tokenizer that is trained for a base from scratch."""
    context: Annotated[int, Field(ge=128)] = 2048
    """Positions of a base from scratch."""
    device: str = "auto"
    """Torch device; ``auto`` is the first GPU, else the CPU. On a GPU the forward pass runs in bfloat16."""
