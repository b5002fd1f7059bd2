"""A causal language model with its tokenizer, as both refinement stages load it.

Weights are safetensors, code from a model is never run, and the checkpoint's own generation settings (temperature,
minimum length, stop lists) are put aside.
"""

import re
from pathlib import Path

from corpusmill.errors import ModelError
from corpusmill.modeling.load import load_causal_lm, model_folder
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig, RefinerConfig
from corpusmill.prox.prompt_tokenizer import RefinerTokenizer, load_tokenizer
from corpusmill.prox.refiner import ResolvedModel, resolve_model

_COMMIT = re.compile("[0-9a-f]{40}")


class CausalModel:
    """A loaded model with its tokenizer.

    Attributes:
        context: Positions that the model has, None where its config names none.
    """

    def __init__(self, folder: Path, config: RefinerConfig) -> None:
        from transformers import GenerationConfig

        self.tokenizer: RefinerTokenizer = load_tokenizer(folder)
        self.model = load_causal_lm(str(folder), dtype=config.dtype, device=config.device)
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
