"""Outputs that a refiner wrote before, taken from the tables or from a cache, so that no model writes them twice.

What a refiner writes depends on its output key (the model's content and the settings that can change an output) and on
what it is shown, never on the execution policy. So a crawl is decided again under another policy without a model, and a
chunk that comes back in another crawl is not refined again (spec: content-addressed cache, exact).

The refiners of this module stand in front of a real one, which is loaded when the first input is found nowhere.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from corpusmill.config import fingerprint
from corpusmill.errors import CorpusmillError, ModelError
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig
from corpusmill.prox.failures import is_error
from corpusmill.prox.program_execution import LOOPED
from corpusmill.prox.program_parser import parse_program
from corpusmill.prox.refiner import (
    Chunk,
    ChunkOutput,
    ChunkRefiner,
    DocDecision,
    DocRefiner,
    ResolvedModel,
    load_chunk_refiner,
    load_doc_refiner,
    resolve_model,
)
from corpusmill.schema import text_digest

_BUNDLED = "bundled:"
_FORMAT = "1"
"""Version of what a cache entry holds; another one finds nothing."""

Answer = TypeVar("Answer", DocDecision, ChunkOutput)
Inner = TypeVar("Inner", DocRefiner, ChunkRefiner)
Item = TypeVar("Item")


@dataclass(frozen=True)
class WrittenProgram:
    """What a refiner wrote for lines ``first_line`` to ``last_line`` (inclusive) of a document."""

    first_line: int
    last_line: int
    output: ChunkOutput


@dataclass(frozen=True)
class StoredDecision:
    """A document's stored output with the output key under which it was written."""

    output_key: str
    decision: DocDecision


@dataclass(frozen=True)
class StoredPrograms:
    """A document's stored programs, in the order of its lines, with the output key under which they were written."""

    output_key: str
    programs: tuple[WrittenProgram, ...]


class StoredOutputs(Protocol):
    """Outputs of an earlier run over the input file that is being refined, by `corpusmill.schema.text_digest`."""

    def decision(self, digest: str) -> StoredDecision | None:
        """Returns what the document refiner wrote for a text, None where nothing is stored."""
        ...

    def programs(self, digest: str) -> StoredPrograms | None:
        """Returns what the chunk refiner wrote for a text, None where nothing is stored."""
        ...


class OutputCache(Protocol):
    """Answers as JSON by 16-byte keys. It may forget, and never gives another answer than was stored."""

    def find(self, keys: Sequence[bytes]) -> dict[bytes, str]:
        """Returns the answers that are there."""
        ...

    def store(self, values: Mapping[bytes, str]) -> None:
        """Keeps answers for a while."""
        ...


@dataclass(frozen=True)
class Reuse:
    """Where existing outputs are looked for; both None: every input reaches the model.

    Attributes:
        stored: The crawl's own table as it is now.
        cache: Answers of all crawls and recipes of this machine.
    """

    stored: StoredOutputs | None = None
    cache: OutputCache | None = None

    @property
    def is_on(self) -> bool:
        """Whether there is any place to look."""
        return self.stored is not None or self.cache is not None


NO_REUSE = Reuse()
"""Every input reaches the model."""


def output_identity(config: DocRefinementConfig | ChunkRefinementConfig) -> ResolvedModel:
    """Returns model id and output key; of a model that is pinned by ``sha256`` no file is read or even needed.

    Behind a server the tokenizer's folder and the served name stand for the model.

    Raises:
        ConfigError: See `corpusmill.prox.refiner.resolve_model`.
        ModelError: A local model is neither pinned nor there.
    """
    if config.sha256 is None:
        resolved = resolve_model(config)
        name, _, version = resolved.model_id.rpartition("@")
        key = resolved.fingerprint
    else:
        name, version = Path(config.model.removeprefix(_BUNDLED)).name, config.sha256[:12]
        key = fingerprint([config.sha256, config.output_fingerprint()])
    if isinstance(config, DocRefinementConfig):
        key = fingerprint([key, _runs_on(config)])
    return ResolvedModel(None, f"{config.served_name or name}@{version}", key)


def _runs_on(config: DocRefinementConfig) -> bool:
    """Returns whether a kept document whose prompt was cut is decoded on, as the official code does.

    See `corpusmill.prox.decision_tokens.decided_call`.
    """
    return config.execution_mode == "compat" and config.prompt_ids == "compat"


class _Reusing(Generic[Inner]):
    """What both refiners in front of a real one share: lazy loading, identity, look-ups and counts."""

    def __init__(
        self,
        config: DocRefinementConfig | ChunkRefinementConfig,
        load: Callable[[], Inner],
        refiner: Inner | None,
        reuse: Reuse,
    ) -> None:
        self._config = config
        self._load: Callable[[], Inner] = load
        self._given = refiner is not None
        self._refiner: Inner | None = refiner
        self._reuse = reuse
        self._counts: Counter[str] = Counter()

    @cached_property
    def _identity(self) -> ResolvedModel:
        return output_identity(self._config)

    @property
    def model_id(self) -> str:
        """Name and version for the tables, never a machine path."""
        return self._refiner.model_id if self._given and self._refiner else self._identity.model_id

    @property
    def fingerprint(self) -> str:
        """Output key: 16 hex digits over weights and settings that can change an output."""
        return self._refiner.fingerprint if self._given and self._refiner else self._identity.fingerprint

    def setup(self) -> None:
        """Loads the refiner unless it may turn out not to be needed."""
        if not self._reuse.is_on:
            self._inner()

    def take_counts(self) -> dict[str, int]:
        """Returns ``reused_stored``, ``reused_cache`` and ``model_calls`` since the last call, in inputs."""
        counts, self._counts = dict(self._counts), Counter()
        return counts

    def _inner(self) -> Inner:
        if self._refiner is None:
            try:
                self._refiner = self._load()
            except CorpusmillError:
                raise
            except Exception as error:  # must not pass for the fault of a document
                raise ModelError(f"the refiner of model={self._config.model!r} cannot be loaded: {error!r}") from error
        return self._refiner

    def _key(self, kind: str, shown: str) -> bytes:
        text = "\0".join([_FORMAT, kind, self.fingerprint, shown])
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()

    def _answers(
        self,
        items: Sequence[Item],
        known: Sequence[Answer | None],
        keys: Sequence[bytes],
        ask: Callable[[Sequence[Item]], Sequence[Answer]],
        read: Callable[[str], Answer],
    ) -> list[Answer]:
        """Returns an answer for each item: the known one, the cached one, or the model's for each distinct rest."""
        cache = self._reuse.cache
        unknown = [index for index, answer in enumerate(known) if answer is None]
        found = {key: read(text) for key, text in cache.find([keys[i] for i in unknown]).items()} if cache else {}
        first: dict[bytes, int] = {}
        for index in unknown:
            if keys[index] not in found:
                first.setdefault(keys[index], index)
        asked = list(first.values())
        written = list(ask([items[i] for i in asked])) if asked else []
        if len(written) != len(asked):
            raise RuntimeError(f"the refiner gave {len(written)} answers to {len(asked)} inputs; expected one each")
        if cache and written:
            answered = [(i, answer) for i, answer in zip(asked, written, strict=True) if not is_error(answer.reason)]
            cache.store({keys[i]: json.dumps(asdict(a), ensure_ascii=True, sort_keys=True) for i, a in answered})
        self._counts["reused_stored"] += len(items) - len(unknown)
        self._counts["reused_cache"] += len(unknown) - len(asked)
        self._counts["model_calls"] += len(asked)
        found |= dict(zip((keys[i] for i in asked), written, strict=True))
        return [found[key] if answer is None else answer for answer, key in zip(known, keys, strict=True)]


class ReusingDocRefiner(_Reusing[DocRefiner]):
    """A document refiner that asks the model only for texts whose output is nowhere.

    The model answers without a threshold: `corpusmill.prox.doc_refinement.decide` applies it to the margin, so that one
    stored answer serves every threshold.

    Args:
        config: Settings of the stage.
        refiner: A refiner to use in place of the one that the settings name.
        reuse: Where outputs are looked for.
    """

    def __init__(self, config: DocRefinementConfig, refiner: DocRefiner | None = None, reuse: Reuse = NO_REUSE) -> None:
        free = config.model_copy(update={"threshold": None})
        super().__init__(config, lambda: load_doc_refiner(free), refiner, reuse)

    def decide(self, texts: Sequence[str]) -> list[DocDecision]:
        """Returns one decision for each text, in order."""
        stored = [self._stored(text) for text in texts]
        keys = [self._key("document", text) for text in texts]
        return self._answers(texts, stored, keys, lambda rest: self._inner().decide(rest), _read_decision)

    @cached_property
    def _other_key(self) -> str:
        """Output key of the same refiner in the other execution mode."""
        mode = "strict" if self._config.execution_mode == "compat" else "compat"
        return output_identity(self._config.model_copy(update={"mode": mode})).fingerprint

    def _stored(self, text: str) -> DocDecision | None:
        found = self._reuse.stored.decision(text_digest(text)) if self._reuse.stored else None
        return found.decision if found is not None and self.serves(found) else None

    def serves(self, stored: StoredDecision) -> bool:
        """Returns whether this refiner would write the same: the modes differ over prompts that were cut alone."""
        if stored.output_key == self.fingerprint:
            return True
        return not self._given and not stored.decision.truncated and stored.output_key == self._other_key


@dataclass(frozen=True)
class _AnsweredChunk(Chunk):
    """A window of lines whose output is stored already."""

    output: ChunkOutput


class ReusingChunkRefiner(_Reusing[ChunkRefiner]):
    """A chunk refiner that asks the model only for windows whose output is nowhere.

    A document with stored programs keeps the windows that they were written for, and the cache keeps the windows of
    each text, so that neither tokenizer nor model is needed to cut it again.

    Args:
        config: Settings of the stage.
        refiner: A refiner to use in place of the one that the settings name.
        reuse: Where outputs are looked for.
    """

    def __init__(
        self,
        config: ChunkRefinementConfig,
        refiner: ChunkRefiner | None = None,
        reuse: Reuse = NO_REUSE,
    ) -> None:
        super().__init__(config, lambda: load_chunk_refiner(config), refiner, reuse)
        self._chunk_config = config

    @cached_property
    def _other_key(self) -> str:
        """Output key of the same refiner with loops stopped where they are not, and the other way round."""
        other = self._chunk_config.model_copy(update={"stop_loops": not self._chunk_config.stops_loops})
        return output_identity(other).fingerprint

    def split(self, text: str) -> list[Chunk]:
        """Returns the windows of the stored programs where they serve, else those that the refiner wants."""
        stored = self._reuse.stored.programs(text_digest(text)) if self._reuse.stored else None
        if stored is not None and self.serves(stored):
            lines = text.split("\n")
            if _covers([(program.first_line, program.last_line) for program in stored.programs], len(lines)):
                return [_answered(program, lines) for program in stored.programs]
        return self._split_anew(text)

    def write_programs(self, chunks: Sequence[Chunk]) -> list[ChunkOutput]:
        """Returns one output for each chunk, in order."""
        stored = [chunk.output if isinstance(chunk, _AnsweredChunk) else None for chunk in chunks]
        keys = [self._key("chunk", "\n".join([str(chunk.first_line), *chunk.lines])) for chunk in chunks]
        return self._answers(chunks, stored, keys, lambda rest: self._inner().write_programs(rest), _read_output)

    def _split_anew(self, text: str) -> list[Chunk]:
        """Returns the refiner's windows; it is not loaded for that where the cache knows where they begin and end."""
        cache, key = self._reuse.cache, self._key("windows", text)
        if cache is None:
            return self._inner().split(text)
        if self._refiner is None and (found := cache.find([key]).get(key)) is not None:
            lines, windows = text.split("\n"), json.loads(found)
            if _covers(windows, len(lines)):
                return [Chunk(first, tuple(lines[first : last + 1])) for first, last in windows]
        chunks = self._inner().split(text)
        cache.store({key: json.dumps([(chunk.first_line, chunk.last_line) for chunk in chunks])})
        return chunks

    def serves(self, stored: StoredPrograms) -> bool:
        """Returns whether this refiner would write the same.

        The execution mode alone may decide whether loops are stopped. Programs that ended by themselves and say nothing
        twice are the same either way.
        """
        if stored.output_key == self.fingerprint:
            return True
        if self._given or stored.output_key != self._other_key:
            return False
        return all(_has_no_loop(program.output) for program in stored.programs)


def _has_no_loop(output: ChunkOutput) -> bool:
    """Returns whether an output ended by itself and says no line and no call twice."""
    calls = parse_program(output.output, "strict").ops
    lines = [line.strip() for line in output.output.split("\n") if line.strip()]
    says_all_once = len(set(calls)) == len(calls) and len(set(lines)) == len(lines)
    return says_all_once and not output.truncated and output.reason != LOOPED


def _covers(windows: Sequence[tuple[int, int]], n_lines: int) -> bool:
    """Returns whether windows (first and last line) follow each other from the first line to the last."""
    starts, ends = [first for first, _ in windows], [last + 1 for _, last in windows]
    return [*starts, n_lines] == [0, *ends] and all(a < b for a, b in zip(starts, ends, strict=True))


def _answered(program: WrittenProgram, lines: list[str]) -> _AnsweredChunk:
    return _AnsweredChunk(
        program.first_line, tuple(lines[program.first_line : program.last_line + 1]), output=program.output
    )


def _read_decision(text: str) -> DocDecision:
    return DocDecision(**json.loads(text))


def _read_output(text: str) -> ChunkOutput:
    return ChunkOutput(**json.loads(text))
