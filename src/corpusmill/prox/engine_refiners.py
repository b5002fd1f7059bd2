"""Both refiners over an engine: something that takes prompts as token ids, batches them itself and decodes greedily.

Engines are servers of the OpenAI protocol (`completions_refiner`) and vLLM in this process (`vllm_refiner`). Prompts,
windows, limits and the reading of outputs are those of the transformers backend, so that the same model gives the same
programs. The model's weights are the engine's affair; only the tokenizer is loaded here.
"""

import json
import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from corpusmill.batches import replace_surrogates
from corpusmill.errors import ConfigError
from corpusmill.prox.chunk_prompts import ChunkPrompts
from corpusmill.prox.chunking import Chunk
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig
from corpusmill.prox.decision_tokens import decided_call
from corpusmill.prox.loop_detection import LoopWatch
from corpusmill.prox.program_execution import LOOPED, decide_document
from corpusmill.prox.prompt_tokenizer import RefinerTokenizer
from corpusmill.prox.refiner import TOO_LONG_PROMPT, ChunkOutput, DocDecision
from corpusmill.prox.token_bytes import TokenBytes

Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class FirstToken:
    """What an engine says about the first new token of a prompt.

    Attributes:
        token: The likeliest one; None where the engine does not name it by id and it is none of the watched two.
        share: p(first watched) / (p(first) + p(second watched)), in [0, 1]; None where the engine does not say.
    """

    token: int | None
    share: float | None


@dataclass(frozen=True)
class Written:
    """A greedy output.

    Attributes:
        text: Its text without end token and outer blanks.
        truncated: True where the limit and not EOS ended it.
        ids: Its ids up to the end token, None where the engine gives text only.
    """

    text: str
    truncated: bool
    ids: tuple[int, ...] | None


class Engine(Protocol):
    """Runs a causal language model on prompts of token ids."""

    context: int | None
    """Tokens that prompt and output may have together, None where it is not known."""

    def first_tokens(self, prompts: Sequence[Sequence[int]], watched: tuple[int, int]) -> list[FirstToken]:
        """Returns the first new token of each prompt, in order, with the odds of two watched tokens."""
        ...

    def write(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[Written]:
        """Returns the greedy output of each prompt, in order; each prompt leaves room for all its new tokens."""
        ...


@dataclass(frozen=True)
class EngineModel:
    """An engine with what its refiners need to know of its model.

    Attributes:
        engine: Where the model runs.
        tokenizer: Its tokenizer.
        pieces: Bytes of each of its tokens, None where they are not known.
        model_id: Name and version for the tables.
        fingerprint: 16 hex digits over all that can change an output.
    """

    engine: Engine
    tokenizer: RefinerTokenizer
    pieces: TokenBytes | None
    model_id: str
    fingerprint: str


def stated_context(folder: Path) -> int | None:
    """Returns the positions that ``config.json`` of a model folder names, None where it names none."""
    path = folder / "config.json"
    stated = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    named = (stated.get(key) for key in ("max_position_embeddings", "n_positions"))  # the second of GPT-2 and its kin
    return next((value for value in named if isinstance(value, int)), None)


def share_of_first(logprobs: Mapping[Name, float], watched: tuple[Name, Name]) -> float | None:
    """Returns p(first) / (p(first) + p(second)) of two watched tokens, None where neither is reported.

    Where one is not among the reported tokens, it counts as much as the least of them: an upper bound, so that the
    share is nearer to 1/2 than the true one.

    Args:
        logprobs: Log probabilities (nats) of the reported tokens.
        watched: Names of the two tokens.
    """
    if not logprobs.keys() & set(watched):
        return None
    first, second = (logprobs.get(name, min(logprobs.values())) for name in watched)
    if math.isnan(first - second):  # both impossible
        return None
    return 1 / (1 + math.exp(min(second - first, 700.0)))  # e^700 is near the largest float


def check_settings(config: DocRefinementConfig | ChunkRefinementConfig) -> None:
    """Raises a ConfigError where the settings ask for what no engine offers: decoding under the grammar."""
    if isinstance(config, ChunkRefinementConfig) and config.is_constrained:
        raise ConfigError(
            f"constrained=True with backend={config.backend!r}: decoding under the grammar runs with "
            "backend='transformers' or 'writer' only"
        )


def written_ids(tokenizer: RefinerTokenizer, ids: Sequence[int], *, truncated: bool) -> Written:
    """Returns an output from its new ids, which may end in EOS; ids that the tokenizer lacks are left out."""
    new = tuple(ids)
    if tokenizer.eos in new:
        new = new[: new.index(tokenizer.eos)]
    new = tuple(token for token in new if 0 <= token < tokenizer.n_vocab)
    return Written(readable(tokenizer.decode(list(new))), truncated, new)


def readable(text: str) -> str:
    """Returns an output without lone surrogates and outer blanks."""
    return replace_surrogates(text)[0].strip(" ")


def _write(engine: Engine, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[Written]:
    """Returns the output of each prompt; prompts near the edge of the context get the room that is left."""
    groups: dict[int, list[int]] = {}
    for index, ids in enumerate(prompts):
        room = max_new_tokens if engine.context is None else min(max_new_tokens, engine.context - len(ids))
        groups.setdefault(room, []).append(index)
    outputs: dict[int, Written] = {}
    for room, members in sorted(groups.items(), reverse=True):
        outputs |= zip(members, engine.write([prompts[index] for index in members], room), strict=True)
    return [outputs[index] for index in range(len(prompts))]


class EngineDocRefiner:
    """Decides keep or drop of whole documents.

    Args:
        config: Settings.
        model: The engine and its model.
    """

    def __init__(self, config: DocRefinementConfig, model: EngineModel) -> None:
        self.model_id, self.fingerprint = model.model_id, model.fingerprint
        self.config = config
        self.engine, self.tokenizer = model.engine, model.tokenizer
        self.decision_ids = model.tokenizer.decision_ids()
        context = model.engine.context
        self.limit = config.max_prompt_tokens if context is None else min(config.max_prompt_tokens, context - 1)

    def decide(self, texts: Sequence[str]) -> list[DocDecision]:
        """Returns one decision for each text, in order, as the transformers backend takes it."""
        clean = [replace_surrogates(text)[0] for text in texts]
        prompts = self.tokenizer.encoder.all_document_ids(clean, self.config.prompt_ids, self.limit)
        firsts = [FirstToken(None, None)] * len(texts)
        if self.decision_ids is not None and texts:
            firsts = self.engine.first_tokens([ids for ids, _ in prompts], self.decision_ids)
        calls = [self._call(first, cut) for first, (_, cut) in zip(firsts, prompts, strict=True)]
        rest = [index for index, call in enumerate(calls) if call is None]
        written = _write(self.engine, [prompts[index][0] for index in rest], self.config.max_new_tokens)
        outputs = dict(zip(rest, (one.text for one in written), strict=True))
        return [
            self._decision(outputs.get(index, call or ""), first.share, prompt)
            for index, (call, first, prompt) in enumerate(zip(calls, firsts, prompts, strict=True))
        ]

    def _call(self, first: FirstToken, cut: bool) -> str | None:
        if self.decision_ids is None:
            return None
        return decided_call(self.config, self.decision_ids, first.token, first.share, cut=cut)

    def _decision(self, output: str, margin: float | None, prompt: tuple[list[int], bool]) -> DocDecision:
        kept, reason = decide_document(output, self.config.execution_mode)
        return DocDecision("keep" if kept else "drop", margin, output, len(prompt[0]), prompt[1], reason)


class EngineChunkRefiner:
    """Writes editing programs.

    Args:
        config: Settings.
        model: The engine and its model.
    """

    def __init__(self, config: ChunkRefinementConfig, model: EngineModel) -> None:
        self.model_id, self.fingerprint = model.model_id, model.fingerprint
        self.config = config
        self.engine, self.tokenizer, self.pieces = model.engine, model.tokenizer, model.pieces
        self.prompts = ChunkPrompts(model.tokenizer, config)

    def split(self, text: str) -> list[Chunk]:
        """Returns windows of at most ``window_tokens`` ids, each line counted with its number and one BOS."""
        return self.prompts.split(text)

    def write_programs(self, chunks: Sequence[Chunk]) -> list[ChunkOutput]:
        """Returns one output for each chunk, in order; a prompt over the limit is not sent."""
        prompts = [self.prompts.ids(chunk) for chunk in chunks]
        context = self.engine.context
        sent = [i for i, ids in enumerate(prompts) if self.prompts.fits(chunks[i], ids, context)]
        written = _write(self.engine, [prompts[index] for index in sent], self.config.max_new_tokens)
        outputs = {index: self._output(one, len(prompts[index])) for index, one in zip(sent, written, strict=True)}
        return [
            outputs.get(index, ChunkOutput("", len(ids), truncated=False, reason=TOO_LONG_PROMPT))
            for index, ids in enumerate(prompts)
        ]

    def _output(self, written: Written, n_prompt: int) -> ChunkOutput:
        """Returns an output; one that repeats a call ends in front of the repetition, where loops are stopped."""
        kept = self._without_loop(written) if self.config.stops_loops else None
        if kept is None:
            return ChunkOutput(written.text, n_prompt, written.truncated)
        return ChunkOutput(kept, n_prompt, truncated=False, reason=LOOPED)

    def _without_loop(self, written: Written) -> str | None:
        """Returns what an output says before it repeats itself, None where it does not.

        An engine decodes to the end, so this saves no time; it makes the text that of a backend that stops.
        """
        if written.ids is not None and self.pieces is not None:
            n_good = _looped(written.ids, self.pieces)
            return None if n_good is None else readable(self.tokenizer.decode(list(written.ids[:n_good])))
        data = written.text.encode()
        n_good = _looped(data, _SINGLE_BYTES)
        return None if n_good is None else readable(data[:n_good].decode())


_SINGLE_BYTES: TokenBytes = tuple(bytes([value]) for value in range(256))


def _looped(tokens: Sequence[int], pieces: TokenBytes) -> int | None:
    """Returns how many tokens to keep of an output that loops, None of another one."""
    watch = LoopWatch(pieces)
    return watch.n_good if any(watch.advance(token) for token in tokens) else None
