"""Settings of packing; light enough for a DAG file to import at parse time."""

from pydantic import Field

from corpusmill.config import StageConfig
from corpusmill.errors import ConfigError
from corpusmill.pruning.config import ScoringConfig

PACKING_VERSION = 1
"""Version of the packing; raised when equal documents may give other sequences."""


class PackingConfig(StageConfig):
    """How documents become token sequences of one length."""

    model: str = "bundled:reference_lm"
    """Model whose tokenizer is used: a folder, a Hugging Face id, ``bundled:NAME`` or a registered model."""
    revision: str | None = None
    """Commit, tag or branch of a Hugging Face model."""
    sha256: str | None = None
    """Expected `corpusmill.modeling.load.model_sha256` of the model folder; None does not check."""
    length: int = Field(default=2048, ge=1)
    """t: tokens of a sequence (the paper: 2048, the context of the reference model and of the trained one)."""


def packing_of(scoring: ScoringConfig) -> PackingConfig:
    """Returns how the sequences are packed that a scoring reads: they fill its context, less the prefix it feeds.

    Raises:
        ConfigError: The scoring names no context, so the length is not known before the model is loaded.
    """
    if scoring.context is None:
        raise ConfigError(
            "score.context=None with unit='sequence': sequences have one length, which must be known when the run is "
            "planned; set context to the number of positions of the reference model, for instance 2048"
        )
    length = scoring.context - (scoring.prefix == "eod")
    return PackingConfig(model=scoring.model, revision=scoring.revision, sha256=scoring.sha256, length=length)
