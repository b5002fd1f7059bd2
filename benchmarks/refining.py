"""Refining against the official way: greedy `generate` on the same prompts, in length-sorted batches of one budget.

    make bench BENCH=refining ARGS="--pages 64"

Two workloads. ``shape``: the public refiners' 354M shape with random weights, prefill-bound; its embeddings and output
layer are set so that it answers as the real ones do, with a short call and the end token. ``tiny``: a small Llama that
is trained here to write real programs, decode-bound. Each side runs in a process of its own, in turns; CPU seconds,
median. The official side is given its token ids, ours reads texts and encodes them. Progress on stderr; the last line
of stdout is a JSON object: ratios are CPU seconds of the official way over ours.

With --tokens-per-second the document and chunk stages of the shape alone are timed, raw tokens by wall clock.
"""

import argparse
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from refining_models import (
    TINY,
    Page,
    read_pages,
    shape_answers,
    train_tiny,
    train_tokenizer,
    write_shape_model,
)
from refining_sides import Task, compare, say
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from corpusmill.prox.chunk_prompts import ChunkPrompts
from corpusmill.prox.chunking import split_text
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig
from corpusmill.prox.prompt_tokenizer import load_tokenizer
from corpusmill.prox.prompts import render_chunk, render_prompt
from corpusmill.prox.public_refiners import N_COUNTED_PARAMETERS
from corpusmill.prox.refiner import load_chunk_refiner, load_doc_refiner

STAGES = ("documents", "chunks")


def compare_stage(
    name: str, stage: str, folder: Path, pages: Sequence[Page], options: argparse.Namespace, threads: int
) -> tuple[float, int]:
    """Compares one stage over pages with the model in a folder."""
    if stage == "documents":
        inputs: list[Any] = [page.text for page in pages]
        encoded = load_tokenizer(folder).encoder.all_document_ids(inputs, "compat", 2000)
        prompts = [ids for ids, _ in encoded]
    else:
        chunk_prompts = chunk_prompts_of(folder)
        inputs = [chunk for page in pages for chunk in chunk_prompts.split(page.text)]
        prompts = [chunk_prompts.ids(chunk) for chunk in inputs]
    n_ids = sum(map(len, prompts))
    say(f"{name} {stage}: {len(prompts)} prompts, {n_ids} ids, longest {max(map(len, prompts))}, threads {threads}")
    place = (threads, options.device, options.dtype)
    tasks = [
        Task("official", stage, str(folder), prompts, *place),
        Task("ours", stage, str(folder), inputs, *place),
    ]
    return compare(f"{name} {stage}", tasks, options.repeats)


def chunk_prompts_of(folder: Path) -> ChunkPrompts:
    """Returns the chunk stage's prompts with the tokenizer of a folder."""
    return ChunkPrompts(load_tokenizer(folder), ChunkRefinementConfig(model=str(folder)))


def compare_tokenisation(folder: Path, pages: Sequence[Page], repeats: int) -> float:
    """Returns the CPU seconds that the official way spends on encoding both stages, over ours.

    The official way with the installed transformers: documents rendered, encoded whole and cut; every numbered line
    encoded to count it, and the rendered chunk encoded again by the engine. Our side and the fast tokenizer keep tables
    of words: all have read the training pages before, and none has read the pages that are timed.
    """
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):
        for name, way in {**official_encoding(folder), **our_encoding(folder)}.items():
            way([page.text for page in read_pages("train")])
            texts = [page.text for page in pages]
            started = time.process_time()
            way(texts)
            seconds.setdefault(name, []).append(time.process_time() - started)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    n_characters = sum(len(page.text) for page in pages)
    for name, value in median.items():
        say(f"tokenisation, {name}: {value:.3f} CPU s, {n_characters / value / 1e6:.2f} million characters/s")
    theirs, ours = (median[f"{whose} documents"] + median[f"{whose} chunks"] for whose in ("official", "our"))
    say(f"tokenisation: ratio {theirs / ours:.2f}")
    return theirs / ours


Encoding = Callable[[Sequence[str]], object]


def official_encoding(folder: Path) -> dict[str, Encoding]:
    """Returns the official way of encoding each stage: the slow tokenizer for documents, the fast one for lines."""
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    of_documents = SentencePieceBackend(vocab_file=str(folder / "tokenizer.model"), legacy=False, **names)
    of_chunks = transformers.LlamaTokenizer.from_pretrained(str(folder))

    def documents(texts: Sequence[str]) -> object:
        return [of_documents.encode(render_prompt(text), truncation=True, max_length=2000) for text in texts]

    def chunks(texts: Sequence[str]) -> object:
        windows = [split_text(text, lambda line: len(of_chunks.encode(line)) + 1, 1500) for text in texts]
        return [of_chunks.encode(render_prompt(render_chunk(chunk))) for window in windows for chunk in window]

    return {"official documents": documents, "official chunks": chunks}


def our_encoding(folder: Path) -> dict[str, Encoding]:
    """Returns our way of encoding each stage, with tokenizers of their own."""
    encoder, prompts = load_tokenizer(folder).encoder, chunk_prompts_of(folder)

    def documents(texts: Sequence[str]) -> object:
        return encoder.all_document_ids(texts, "compat", 2000)

    def chunks(texts: Sequence[str]) -> object:
        return [prompts.ids(chunk) for text in texts for chunk in prompts.split(text)]

    return {"our documents": documents, "our chunks": chunks}


def write_shape(folder: Path, source: Path, stage: str, pages: Sequence[Page]) -> None:
    """Writes the model of the public shape that answers one stage."""
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes((source / "tokenizer.model").read_bytes())
    tokenizer = load_tokenizer(folder)
    texts = sorted((page.text for page in pages), key=len)[:8]
    if stage == "documents":
        prompts = [ids for ids, _ in tokenizer.encoder.all_document_ids(texts, "compat", 2000)]
    else:
        chunks = chunk_prompts_of(folder)
        prompts = [chunks.ids(chunks.split(text)[0]) for text in texts]
    write_shape_model(folder, shape_answers(tokenizer, stage), prompts)


def matmul_rate(device: str, dtype: torch.dtype) -> float:
    """Returns measured operations per second of a large matrix product."""
    n = 8192 if device.startswith("cuda") else 2048
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    rates = []
    for _ in range(5):
        _finish(device)
        started = time.perf_counter()
        torch.mm(a, b)
        _finish(device)
        rates.append(2 * n**3 / (time.perf_counter() - started))
    return statistics.median(rates)


def _finish(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def measure_throughput(folder: Path, pages: Sequence[Page], options: argparse.Namespace) -> dict[str, float]:
    """Returns raw tokens per second of both stages by wall clock, texts in and decisions or programs out."""
    place = {"device": options.device, "dtype": options.dtype, "batch_tokens": options.batch_tokens}
    rate = matmul_rate(options.device, getattr(torch, options.dtype))
    say(f"matrix product {rate / 1e12:.1f} TFLOP/s")
    found = {"matmul_tflops": rate / 1e12}
    texts = [page.text for page in pages]
    for stage in STAGES:
        model = folder / stage
        write_shape(model, folder / "llama", stage, [page.beginning(600) for page in pages])
        if stage == "documents":
            decide = load_doc_refiner(DocRefinementConfig(model=str(model), **place)).decide
            run: Callable[[], int] = lambda: sum(d.n_prompt_tokens for d in decide(texts))  # noqa: B023, E731
        else:
            refiner = load_chunk_refiner(ChunkRefinementConfig(model=str(model), **place))

            def run() -> int:
                chunks = [chunk for text in texts for chunk in refiner.split(text)]  # noqa: B023
                return sum(output.n_prompt_tokens for output in refiner.write_programs(chunks))  # noqa: B023

        speeds = []
        for _ in range(options.repeats + 1):  # the first one warms up
            started = time.perf_counter()
            n_ids = run()
            speeds.append(n_ids / (time.perf_counter() - started))
        speed = statistics.median(speeds[1:])
        say(f"{stage}: {speed:.0f} tokens/s, {n_ids} tokens, 2 N D over the matrix product {mfu(speed, rate):.2f}")
        found |= {f"{stage}_tokens_per_second": speed, f"{stage}_utilisation": mfu(speed, rate)}
    return found


def mfu(tokens_per_second: float, rate: float) -> float:
    """Returns the share of a matrix product's speed, counting 2 N operations a token as the paper does."""
    return 2 * N_COUNTED_PARAMETERS * tokens_per_second / rate


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=64, help="pages of each workload")
    parser.add_argument("--characters", type=int, default=600, help="characters of a page of the 354M shape")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each side; the median counts")
    parser.add_argument("--train-steps", type=int, default=600, help="training steps of the tiny model")
    parser.add_argument("--tiny-only", action="store_true", help="leave the 354M shape out")
    parser.add_argument("--shape-only", action="store_true", help="leave the tiny model and tokenisation out")
    parser.add_argument(
        "--quick", action="store_true", help="8 pages of the 354M shape, one run each: a look, no figure"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads for the 354M shape")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N")
    parser.add_argument("--dtype", default="float32", choices=["float32", "float16", "bfloat16"])
    parser.add_argument("--batch-tokens", type=int, default=65_536, help="with --tokens-per-second")
    parser.add_argument("--tokens-per-second", action="store_true", help="throughput of the 354M shape instead")
    options = parser.parse_args()
    if options.quick:
        options.repeats = 1
    pages = read_pages("dev")
    pages = [pages[i % len(pages)] for i in range(options.pages)]
    with tempfile.TemporaryDirectory(prefix="corpusmill-bench-") as temporary:
        folder = Path(temporary)
        train_tokenizer(folder / "llama", read_pages("train"), 32_000)
        if options.tokens_per_second:
            result = measure_throughput(folder, pages, options)
        else:
            result = compare_all(folder, pages, options)
    print(json.dumps({name: round(value, 3) for name, value in result.items()}))


def compare_all(folder: Path, pages: Sequence[Page], options: argparse.Namespace) -> dict[str, float]:
    """Returns the ratios of all workloads."""
    result: dict[str, float] = {}
    different = 0
    if not options.tiny_only:
        short = [page.beginning(options.characters) for page in pages[: 8 if options.quick else None]]
        for stage, key in zip(STAGES, ("doc_ratio", "chunk_ratio"), strict=True):
            model = folder / f"shape-{stage}"
            write_shape(model, folder / "llama", stage, short)
            result[key], n = compare_stage("shape", stage, model, short, options, options.threads)
            different += n
            shutil.rmtree(model)
    if options.shape_only:
        return result | {"text_mismatches": different}
    tiny = folder / "tiny"
    train_tokenizer(tiny, read_pages("train"), TINY["vocab_size"])
    train_tiny(tiny, read_pages("train"), options.train_steps, say)
    windows = [page.busiest(700) for page in pages]
    for stage, key in zip(STAGES, ("doc_ratio_tiny", "chunk_ratio_tiny"), strict=True):
        result[key], n = compare_stage("tiny", stage, tiny, windows, options, 1)
        different += n
    ratio = compare_tokenisation(folder / "llama", pages, 5)
    return result | {"text_mismatches": different, "tokenisation_ratio": ratio}


if __name__ == "__main__":
    main()
