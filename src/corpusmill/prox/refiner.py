"""What a refiner is: the protocols of both stages, their data, and the loaders by backend.

A refiner turns text into the output of a model. It never edits text: programs are parsed and executed elsewhere, so
that stored outputs can be executed again without a model.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeVar, runtime_checkable

from corpusmill.config import fingerprint
from corpusmill.errors import ConfigError
from corpusmill.prox.chunking import Chunk as Chunk
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig

Config = TypeVar("Config", DocRefinementConfig, ChunkRefinementConfig)

LANGUAGE_MODELS = frozenset({"transformers", "vllm", "completions"})
"""Backends whose model is a causal language model; its folder may hold a record of its training."""

TOO_LONG_PROMPT = "too_long_prompt"
"""Reason of a chunk whose prompt exceeds the limit: it was not sent and stays as it is."""


@dataclass(frozen=True)
class DocDecision:
    """What the document refiner said about one document.

    Attributes:
        decision: ``keep`` or ``drop``.
        margin: p(drop) / (p(drop) + p(keep)) at the first new token, in [0, 1]; None where the model has no such token.
        output: Program text, for instance ``drop_doc()``; exactly what would stand in an audit.
        n_prompt_tokens: Ids that the model saw.
        truncated: True where the document did not fit and was cut.
        reason: ``kept``, ``dropped_model``, ``unparsed`` or ``empty_output`` (both keep).
    """

    decision: Literal["keep", "drop"]
    margin: float | None
    output: str
    n_prompt_tokens: int
    truncated: bool
    reason: str


@dataclass(frozen=True)
class ChunkOutput:
    """What the chunk refiner wrote for one chunk.

    Attributes:
        output: Program text as emitted, ``""`` where the chunk was not sent.
        n_prompt_tokens: Ids that the model saw, or would have seen.
        truncated: True where the output ended at the token limit and not at an end token.
        reason: ``""``, or why there is no output (``too_long_prompt``).
    """

    output: str
    n_prompt_tokens: int
    truncated: bool
    reason: str = ""


@runtime_checkable
class DocRefiner(Protocol):
    """Decides for whole documents."""

    model_id: str
    """Name and version for the tables, never a machine path."""
    fingerprint: str
    """16 hex digits over weights and settings that can change a decision."""

    def decide(self, texts: Sequence[str]) -> list[DocDecision]:
        """Returns one decision for each text, in order."""
        ...


@runtime_checkable
class ChunkRefiner(Protocol):
    """Writes an editing program for each window of lines."""

    model_id: str
    """Name and version for the tables, never a machine path."""
    fingerprint: str
    """16 hex digits over weights and settings that can change an output."""

    def split(self, text: str) -> list[Chunk]:
        """Returns the windows that this refiner wants; joined with line breaks, their lines are the text."""
        ...

    def write_programs(self, chunks: Sequence[Chunk]) -> list[ChunkOutput]:
        """Returns one output for each chunk, in order; line numbers are those of the document."""
        ...


def folder_digest(folder: Path) -> str:
    """Returns the sha256 (64 hex digits) over names and bytes of a model folder's files; Markdown is left out."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".md"):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class ResolvedModel:
    """A model that was found.

    Attributes:
        place: Local folder or file; None for a hub model that is not fetched yet.
        model_id: ``name@first 12 hex digits`` of a local model's digest, ``hub/id@revision`` otherwise.
        fingerprint: 16 hex digits over the weights (or hub id and revision) and the settings that can change an output.
    """

    place: Path | None
    model_id: str
    fingerprint: str


def resolve_model(config: DocRefinementConfig | ChunkRefinementConfig) -> ResolvedModel:
    """Returns where the settings' model is and what identifies it; reads a local model once for its digest.

    Raises:
        ConfigError: ``sha256`` is set and differs, or is set for a hub id (which a revision pins).
        ModelError: A bundled model or a folder does not exist.
    """
    settings = config.output_fingerprint()
    place = local_place(config.model)
    if place is None:
        if config.sha256 is not None:
            raise ConfigError(
                f"sha256={config.sha256!r} is set but model={config.model!r} is a hub id; pin it by revision (a commit)"
            )
        model_id = f"{config.model}@{config.revision or 'main'}"
        return ResolvedModel(None, model_id, fingerprint([model_id, settings]))
    digest = folder_digest(place) if place.is_dir() else hashlib.sha256(place.read_bytes()).hexdigest()
    if config.sha256 is not None and config.sha256 != digest:
        raise ConfigError(
            f"model={place.name!r} has sha256={digest!r}, the settings expect {config.sha256!r}; "
            "its files were changed, or the settings name another version"
        )
    return ResolvedModel(place, f"{place.name}@{digest[:12]}", fingerprint([digest, settings]))


def local_place(model: str) -> Path | None:
    """Returns the folder or file of a model that is no hub id, else None.

    Raises:
        ModelError: It is named as a folder and is not there.
    """
    from corpusmill.modeling.load import BUNDLED, model_folder

    path = Path(model).expanduser()
    if path.exists():
        return path
    if model.startswith((BUNDLED, "/", ".", "~")):
        return model_folder(model)
    return None


def _own_folder(config: DocRefinementConfig | ChunkRefinementConfig) -> Path:
    place = resolve_model(config).place
    if place is None:
        raise ConfigError(
            f"model={config.model!r} is no folder; a {config.backend} is a local folder or bundled:NAME, as "
            "`corpusmill build-refiner` writes it"
        )
    return place


def _as_trained(config: Config) -> Config:
    """Returns the settings with what a local language model's own record says about them."""
    place = local_place(config.model) if config.backend in LANGUAGE_MODELS else None
    if place is None or not place.is_dir():
        return config
    from corpusmill.prox.program_model_folder import as_trained

    return as_trained(config, place)


def load_doc_refiner(config: DocRefinementConfig) -> DocRefiner:
    """Returns the document refiner that the settings name; a program model of ours runs as it was trained.

    Raises:
        ConfigError: The model's digest is not the expected one, the backend has no document stage, or the model is one
            of the chunk stage.
        ModelError: The model cannot be loaded.
    """
    config = _as_trained(config)
    if config.backend == "labeller":
        from corpusmill.prox.line_labeller import LabellerDocRefiner

        return LabellerDocRefiner(_own_folder(config), config.threshold)
    if config.backend == "scripted":
        from corpusmill.prox.scripted_refiner import ScriptedDocRefiner

        return ScriptedDocRefiner(config)
    if config.backend == "completions":
        from corpusmill.prox.completions_refiner import CompletionsDocRefiner

        return CompletionsDocRefiner(config)
    if config.backend == "vllm":
        from corpusmill.prox.vllm_refiner import VllmDocRefiner

        return VllmDocRefiner(config)
    if config.backend == "writer":
        raise ConfigError(
            f"refine_documents: backend='writer' (model={config.model!r}) writes chunk programs only; use 'labeller' "
            "or 'transformers' for documents"
        )
    from corpusmill.prox.transformers_doc_refiner import TransformersDocRefiner

    return TransformersDocRefiner(config)


def load_chunk_refiner(config: ChunkRefinementConfig) -> ChunkRefiner:
    """Returns the chunk refiner that the settings name; a program model of ours runs as it was trained.

    Raises:
        ConfigError: The model's digest is not the expected one, or the model is one of the document stage.
        ModelError: The model cannot be loaded.
    """
    config = _as_trained(config)
    if config.backend == "labeller":
        from corpusmill.prox.line_labeller import LabellerChunkRefiner

        return LabellerChunkRefiner(_own_folder(config), config.threshold)
    if config.backend == "writer":
        from corpusmill.prox.program_writer import WriterChunkRefiner

        return WriterChunkRefiner(_own_folder(config), constrained=config.is_constrained)
    if config.backend == "scripted":
        from corpusmill.prox.scripted_refiner import ScriptedChunkRefiner

        return ScriptedChunkRefiner(config)
    if config.backend == "completions":
        from corpusmill.prox.completions_refiner import CompletionsChunkRefiner

        return CompletionsChunkRefiner(config)
    if config.backend == "vllm":
        from corpusmill.prox.vllm_refiner import VllmChunkRefiner

        return VllmChunkRefiner(config)
    from corpusmill.prox.transformers_chunk_refiner import TransformersChunkRefiner

    return TransformersChunkRefiner(config)
