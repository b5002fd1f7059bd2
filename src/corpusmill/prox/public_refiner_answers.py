"""What a public refiner answers on pages: checks and measures for `verify_public_refiner`.

Published to compare with: failures 0.04 % (web documents), 0.06 % (math documents), 0.36 % (web chunks), 0.11 % (math
chunks), 3.7 (web) and 2.7 (math) calls a chunk program (arXiv 2409.17115, appendix). Not known and measured here: which
keep flag and argument names are written, how far prompt encodings and dtypes agree, and what cut prompts do.
"""

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeVar

import torch
from transformers import GenerationConfig

from corpusmill.batches import replace_surrogates
from corpusmill.modeling.load import load_causal_lm
from corpusmill.prox.causal_model import fetched_model
from corpusmill.prox.chunk_prompts import ChunkPrompts
from corpusmill.prox.chunking import Chunk
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig, RefinerConfig
from corpusmill.prox.program import KEEP_NAMES
from corpusmill.prox.program_execution import EMPTY_OUTPUT, UNPARSED, decide_document
from corpusmill.prox.prompt_tokenizer import load_tokenizer
from corpusmill.prox.public_refiners import Check, compared
from corpusmill.prox.refiner import ChunkOutput, DocDecision
from corpusmill.prox.transformers_chunk_refiner import TransformersChunkRefiner
from corpusmill.prox.transformers_doc_refiner import TransformersDocRefiner

PUBLISHED_FAILURES = {
    "documents": {"web": 0.0004, "math": 0.0006},
    "chunks": {"web": 0.0036, "math": 0.0011},
}
"""Share of outputs that cannot be executed."""
ALARM = 0.01
"""Failure share at which something is wrong with prompts, weights or numerics rather than with single outputs."""
N_GENERATED = 16
"""Inputs on which fast and plain decoding are compared."""

_CALL = re.compile(r"^\s*([a-z_]+)\s*\(", re.MULTILINE)
_ARGUMENT = re.compile(r"[(,]\s*([a-z_]+)\s*=")
Config = TypeVar("Config", bound=RefinerConfig)


def answer_checks(config: RefinerConfig, dtypes: Sequence[str], pages: Sequence[str]) -> Iterator[Check]:
    """Yields the checks of one stage over pages.

    Args:
        config: Settings of either stage; ``dtype`` is replaced by each of the dtypes.
        dtypes: The first one is the reference.
        pages: Texts, at least one.
    """
    if isinstance(config, DocRefinementConfig):
        yield from _document_checks(config, dtypes, pages)
    elif isinstance(config, ChunkRefinementConfig):
        yield from _chunk_checks(config, dtypes, pages)


def _document_checks(config: DocRefinementConfig, dtypes: Sequence[str], pages: Sequence[str]) -> Iterator[Check]:
    decisions, speed = _decide(config, pages)
    called = [d.reason not in (UNPARSED, EMPTY_OUTPUT) for d in decisions]
    yield _failures("documents", config.model, called.count(False), len(decisions))
    cut = [i for i, decision in enumerate(decisions) if decision.truncated]
    whole = [i for i, decision in enumerate(decisions) if not decision.truncated]
    yield Check("share of cut prompts", "measured", _share(len(cut), len(pages)))
    yield Check("answered by a call, whole prompts", "measured", _share(sum(called[i] for i in whole), len(whole)), 1.0)
    yield Check("answered by a call, cut prompts", "measured", _share(sum(called[i] for i in cut), len(cut)), 1.0)
    yield Check("share of kept documents", "measured", _share(sum(d.decision == "keep" for d in decisions), len(pages)))
    verdicts = [d.decision for d in decisions]
    yield from _same_as_generated(config, pages, verdicts)
    other, _ = _decide(config.model_copy(update={"prompt_ids": "sft"}), pages)
    trained = [d.decision for d in other]
    yield _agreement("compat and sft prompts, whole", verdicts, trained, whole)
    yield _agreement("compat and sft prompts, cut", verdicts, trained, cut)
    for dtype in dtypes[1:]:
        flipped = [d.decision for d in _decide(_in(config, dtype), pages)[0]]
        yield _agreement(f"{dtypes[0]} and {dtype}", verdicts, flipped, range(len(pages)))
    yield Check(f"prompt tokens per second, {config.dtype}", "measured", round(speed))


def _decide(config: DocRefinementConfig, pages: Sequence[str]) -> tuple[list[DocDecision], float]:
    refiner = TransformersDocRefiner(config)
    started = time.perf_counter()
    decisions = refiner.decide(pages)
    return decisions, sum(d.n_prompt_tokens for d in decisions) / (time.perf_counter() - started)


def _chunk_checks(config: ChunkRefinementConfig, dtypes: Sequence[str], pages: Sequence[str]) -> Iterator[Check]:
    refiner = TransformersChunkRefiner(config)
    chunks = [chunk for page in pages for chunk in refiner.split(page)]
    outputs, speed = _write(refiner, chunks)
    texts = [output.output for output in outputs]
    asked = [i for i, output in enumerate(outputs) if not output.reason]
    yield _failures("chunks", config.model, sum(not _is_program(texts[i]) for i in asked), len(asked))
    yield Check("keep flags", "measured", _counted(name for name in _names(texts) if name in KEEP_NAMES))
    yield Check("argument names", "measured", _counted(name for text in texts for name in _ARGUMENT.findall(text)))
    n_calls = sum(1 for _ in _names(texts))
    published = 2.7 if "math" in config.model else 3.7
    yield Check("calls per program", "measured", round(n_calls / max(1, len(asked)), 2), published)
    yield Check("cut at the limit", "measured", _share(sum(outputs[i].truncated for i in asked), len(asked)))
    yield Check("prompts too long", "measured", _share(len(outputs) - len(asked), len(outputs)))
    yield from _same_as_generated(config, chunks, texts)
    other, _ = _write(TransformersChunkRefiner(config.model_copy(update={"prompt_ids": "sft"})), chunks)
    yield _agreement("compat and sft prompts", texts, [output.output for output in other], asked)
    for dtype in dtypes[1:]:
        flipped, _ = _write(TransformersChunkRefiner(_in(config, dtype)), chunks)
        yield _agreement(f"{dtypes[0]} and {dtype}", texts, [output.output for output in flipped], asked)
    yield Check(f"prompt tokens per second, {config.dtype}", "measured", round(speed))


def _write(refiner: TransformersChunkRefiner, chunks: Sequence[Chunk]) -> tuple[list[ChunkOutput], float]:
    started = time.perf_counter()
    outputs = refiner.write_programs(chunks)
    return outputs, sum(o.n_prompt_tokens for o in outputs) / (time.perf_counter() - started)


def _same_as_generated(
    config: DocRefinementConfig | ChunkRefinementConfig, inputs: Sequence[Any], answers: Sequence[str]
) -> Iterator[Check]:
    """Compares answers with those of transformers' own `generate`, one input at a time."""
    some = inputs[:N_GENERATED]
    plain = _generated(config, some)
    different = sum(a != b for a, b in zip(answers, plain, strict=False))
    yield compared(f"answers that differ from `generate`, of {len(some)}", different, 0)


def _generated(config: DocRefinementConfig | ChunkRefinementConfig, inputs: Sequence[Any]) -> list[str]:
    """Returns verdicts on documents or outputs on chunks, by `generate` on a model loaded as transformers loads it."""
    folder, _ = fetched_model(config)
    tokenizer = load_tokenizer(folder)
    model = load_causal_lm(str(folder), dtype=config.dtype, device=config.device)
    context = model.config.max_position_embeddings
    answers = []
    for item in inputs:
        if isinstance(config, DocRefinementConfig):
            limit = min(config.max_prompt_tokens, context - 1)
            ids, _ = tokenizer.encoder.document_ids(replace_surrogates(item)[0], config.prompt_ids, limit)
        else:
            ids = ChunkPrompts(tokenizer, config).ids(Chunk(item.first_line, item.lines))
        room = min(config.max_new_tokens, context - len(ids)) if len(ids) <= config.max_prompt_tokens else 0
        output = tokenizer.decode(_generate(model, ids, room, tokenizer.eos)) if room > 0 else ""
        text = replace_surrogates(output)[0].strip(" ")
        verdict = "keep" if decide_document(text, "compat")[0] else "drop"
        answers.append(verdict if isinstance(config, DocRefinementConfig) else text)
    return answers


def _generate(model: Any, ids: Sequence[int], room: int, eos: int | None) -> list[int]:
    prompt = torch.tensor([list(ids)], device=model.device)
    settings = GenerationConfig(do_sample=False, num_beams=1, max_new_tokens=room, eos_token_id=eos, pad_token_id=0)
    with torch.inference_mode():
        written = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt), generation_config=settings)
    new: list[int] = written[0, len(ids) :].tolist()
    return new[: new.index(eos)] if eos in new else new


def _in(config: Config, dtype: str) -> Config:
    return config.model_copy(update={"dtype": dtype})


def _failures(stage: Literal["documents", "chunks"], model: str, n_failed: int, n: int) -> Check:
    kind = "math" if "math" in model else "web"
    share = _share(n_failed, n)
    outcome: Literal["passed", "failed"] = "passed" if share is not None and share <= ALARM else "failed"
    return Check("share of failures", outcome, share, PUBLISHED_FAILURES[stage][kind])


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _agreement(name: str, some: Sequence[str], others: Sequence[str], rows: Sequence[int]) -> Check:
    return Check(f"agreement, {name}", "measured", _share(sum(some[i] == others[i] for i in rows), len(rows)), 1.0)


def _names(texts: Sequence[str]) -> Iterator[str]:
    return (name for text in texts for name in _CALL.findall(text))


def _is_program(text: str) -> bool:
    """Returns whether an output holds a call of the language."""
    return any(name in {*KEEP_NAMES, "remove_lines", "normalize"} for name in _CALL.findall(text))


def _counted(names: Iterator[str]) -> dict[str, int]:
    return dict(Counter(names).most_common())
