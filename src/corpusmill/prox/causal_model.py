"""A causal language model with its tokenizer, as both refinement stages load it.

Weights are safetensors, code from a model is never run, and the checkpoint's own generation settings (temperature,
minimum length, stop lists) are put aside.
"""

import re
from functools import cached_property
from pathlib import Path

from corpusmill.errors import ConfigError, ModelError
from corpusmill.modeling.load import load_causal_lm, model_folder
from corpusmill.modeling.onednn_linear import use_onednn
from corpusmill.modeling.packed_attention import supports_packing
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig, RefinerConfig
from corpusmill.prox.program_drafts import DraftTable
from corpusmill.prox.program_grammar import Vocabulary
from corpusmill.prox.prompt_tokenizer import RefinerTokenizer, load_tokenizer
from corpusmill.prox.refiner import ResolvedModel, resolve_model
from corpusmill.prox.token_bytes import TokenBytes, token_bytes

_COMMIT = re.compile("[0-9a-f]{40}")


class CausalModel:
    """A loaded model with its tokenizer.

    Attributes:
        context: Positions that the model has, None where its config names none.
    """

    def __init__(self, folder: Path, config: RefinerConfig) -> None:
        from transformers import GenerationConfig

        self.folder = folder
        self.tokenizer: RefinerTokenizer = load_tokenizer(folder)
        self.model = load_causal_lm(str(folder), dtype=config.dtype, device=config.device)
        use_onednn(self.model)
        n_embeddings = self.model.get_input_embeddings().num_embeddings
        if self.tokenizer.n_vocab > n_embeddings:
            raise ModelError(
                f"model {folder.name!r} embeds {n_embeddings} ids, its tokenizer has {self.tokenizer.n_vocab}; "
                "the tokenizer belongs to another model"
            )
        self.model.generation_config = GenerationConfig()  # the checkpoint's own must not steer greedy decoding
        self.context: int | None = getattr(self.model.config, "max_position_embeddings", None)
        self.batch_tokens = config.batch_tokens
        self.pad = self.tokenizer.eos or 0  # always masked: which id it is changes nothing

    @cached_property
    def packs(self) -> bool:
        """Whether the model gives the same logits for packed tokens; tried once."""
        return supports_packing(self.model, self.tokenizer.n_vocab)

    @cached_property
    def pieces(self) -> TokenBytes | None:
        """Bytes of each token, None for a tokenizer of a kind that is not known."""
        return token_bytes(self.folder)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Tokens as the grammar reads them.

        Raises:
            ConfigError: The tokenizer is of a kind whose tokens cannot be read.
        """
        if self.pieces is None:
            raise ConfigError(
                f"constrained=True but the tokens of model {self.folder.name!r} cannot be read as bytes; expected a "
                "tokenizer.model, or a tokenizer.json with a byte-level or SentencePiece decoder"
            )
        return Vocabulary(self.pieces, self.tokenizer.eos)

    @cached_property
    def drafts(self) -> DraftTable:
        """What is known about how programs of this model go on."""
        return DraftTable(self.pieces, self.tokenizer.encoder.encode, self.tokenizer.eos)

    def room(self, n_prompt: int, max_new_tokens: int) -> int:
        """Returns how many tokens may follow a prompt."""
        return max_new_tokens if self.context is None else min(max_new_tokens, self.context - n_prompt)


def fetched_model(config: DocRefinementConfig | ChunkRefinementConfig) -> tuple[Path, ResolvedModel]:
    """Returns the model's folder and identity; of a hub model the commit that was fetched, where its folder tells."""
    resolved = resolve_model(config)
    if resolved.place is not None:
        return resolved.place, resolved
    folder = model_folder(config.model, config.revision)
    if _COMMIT.fullmatch(folder.name):
        resolved = resolve_model(config.model_copy(update={"revision": folder.name}))
    return folder, resolved
