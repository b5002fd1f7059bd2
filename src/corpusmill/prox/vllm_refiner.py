"""Both refiners over vLLM in this process, which is installed apart: it brings its own torch and CUDA.

Everything but the calls of vLLM is shared with the servers' backend (`engine_refiners`). vLLM gets token ids and gives
token ids: its tokenizer is not loaded, and the checkpoint's own generation settings are put aside. Written against the
offline interface of vLLM 0.10 and later (``LLM.generate`` over ``{"prompt_token_ids": ...}``).

The official pipeline ran in float16; give ``dtype: float16`` for parity. vLLM takes the GPUs that
``CUDA_VISIBLE_DEVICES`` names.
"""

import inspect
from collections.abc import Sequence
from typing import Any

from corpusmill.errors import ConfigError, ModelError
from corpusmill.prox.causal_model import fetched_model
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig
from corpusmill.prox.engine_refiners import (
    EngineChunkRefiner,
    EngineDocRefiner,
    EngineModel,
    FirstToken,
    Written,
    check_settings,
    share_of_first,
    stated_context,
    written_ids,
)
from corpusmill.prox.prompt_tokenizer import RefinerTokenizer, load_tokenizer
from corpusmill.prox.token_bytes import token_bytes

LOGPROBS = 20
"""Likeliest tokens to ask a vLLM for that cannot report given ones; the most that it gives by default."""


class VllmEngine:
    """Runs prompts in vLLM.

    Args:
        vllm: The ``vllm`` module.
        llm: Its ``LLM``.
        tokenizer: The model's tokenizer.
        context: Tokens that prompt and output may have together, None where it is not known.
    """

    def __init__(self, vllm: Any, llm: Any, tokenizer: RefinerTokenizer, context: int | None) -> None:
        self.sampling_params = vllm.SamplingParams
        self.llm = llm
        self.tokenizer = tokenizer
        self.context = context
        self.reports_given_tokens = "logprob_token_ids" in inspect.signature(vllm.SamplingParams).parameters

    def first_tokens(self, prompts: Sequence[Sequence[int]], watched: tuple[int, int]) -> list[FirstToken]:
        """Returns the first new token of each prompt, in order, with the odds of two watched tokens."""
        wanted: dict[str, Any] = (
            {"logprob_token_ids": list(watched)} if self.reports_given_tokens else {"logprobs": LOGPROBS}
        )
        outputs = self._generate(prompts, max_tokens=1, **wanted)
        return [FirstToken(output.token_ids[0], share_of_first(_logprobs(output), watched)) for output in outputs]

    def write(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[Written]:
        """Returns the greedy output of each prompt, in order."""
        return [
            written_ids(self.tokenizer, output.token_ids, truncated=output.finish_reason == "length")
            for output in self._generate(prompts, max_tokens=max_new_tokens)
        ]

    def _generate(self, prompts: Sequence[Sequence[int]], **settings: Any) -> list[Any]:
        if not prompts:
            return []
        stop = [] if self.tokenizer.eos is None else [self.tokenizer.eos]
        params = self.sampling_params(temperature=0.0, stop_token_ids=stop, detokenize=False, **settings)
        requests = [{"prompt_token_ids": list(ids)} for ids in prompts]
        return [answer.outputs[0] for answer in self.llm.generate(requests, params, use_tqdm=False)]


def _logprobs(output: Any) -> dict[int, float]:
    """Returns the reported log probabilities (nats) at the first new token."""
    return {token: reported.logprob for token, reported in output.logprobs[0].items()}


def _loaded(config: DocRefinementConfig | ChunkRefinementConfig) -> EngineModel:
    check_settings(config)
    if config.device not in ("auto", "cuda"):
        raise ConfigError(
            f"device={config.device!r} with backend='vllm', which takes the GPUs that CUDA_VISIBLE_DEVICES names; "
            "leave device at 'auto'"
        )
    try:
        import vllm  # type: ignore[import-not-found, unused-ignore]  # not in any extra: it pins its own torch
    except ImportError as error:
        raise ModelError(
            "backend='vllm' needs vLLM in this environment, which is installed apart: `pip install vllm` (Linux, "
            f"a GPU; it pins its own torch). Or use backend='transformers'. Importing it said: {error}"
        ) from error
    folder, resolved = fetched_model(config)
    tokenizer = load_tokenizer(folder)
    llm = vllm.LLM(
        model=str(folder),
        dtype=config.dtype,
        seed=0,
        skip_tokenizer_init=True,  # ids go in and come out
        trust_remote_code=False,
        generation_config="vllm",  # none of the checkpoint's penalties or stop lists
        enable_prefix_caching=False,  # prompts share a dozen tokens only
    )
    engine = VllmEngine(vllm, llm, tokenizer, stated_context(folder))
    return EngineModel(engine, tokenizer, token_bytes(folder), resolved.model_id, resolved.fingerprint)


class VllmDocRefiner(EngineDocRefiner):
    """Decides keep or drop of whole documents with vLLM.

    Raises:
        ConfigError: The model's digest is not the expected one, or a device is named.
        ModelError: vLLM is not installed, or the model cannot be found.
    """

    def __init__(self, config: DocRefinementConfig) -> None:
        super().__init__(config, _loaded(config))


class VllmChunkRefiner(EngineChunkRefiner):
    """Writes editing programs with vLLM.

    Raises:
        ConfigError: The model's digest is not the expected one, a device is named, or decoding under the grammar.
        ModelError: vLLM is not installed, or the model cannot be found.
    """

    def __init__(self, config: ChunkRefinementConfig) -> None:
        super().__init__(config, _loaded(config))
