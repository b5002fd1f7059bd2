"""Shapes of decoders that are trained from scratch; light enough for a DAG file to import at parse time."""

from dataclasses import dataclass
from typing import Literal

Architecture = Literal["llama", "gpt2"]


@dataclass(frozen=True)
class Preset:
    """Shape of a decoder.

    Attributes:
        architecture: ``llama`` (rotary positions, tied embeddings) or ``gpt2`` (learned positions).
        hidden: Width.
        layers: Number of blocks.
        heads: Attention heads.
        feed_forward: Width of the feed-forward layer.
        context: Positions.
    """

    architecture: Architecture
    hidden: int
    layers: int
    heads: int
    feed_forward: int
    context: int


PRESETS: dict[str, Preset] = {
    "test": Preset("llama", 32, 1, 2, 64, 64),
    "tiny": Preset("llama", 128, 4, 4, 352, 256),
    "small": Preset("llama", 256, 6, 8, 704, 512),
    "gpt-124m": Preset("gpt2", 768, 12, 12, 3072, 2048),
}
"""Named shapes: ``tiny`` trains in minutes on a CPU, ``gpt-124m`` is the size of the paper's small models."""
PAPER_VOCABULARY = 51_200
"""Ids of the paper's tokenizer ("When Less is More", arXiv 2309.04564v1, section 3)."""
