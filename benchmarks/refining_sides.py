"""The two sides of the refining benchmark, each in a process of its own: `generate`, and this project's refiners."""

import multiprocessing
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from corpusmill.modeling.load import load_causal_lm
from corpusmill.modeling.token_batches import plan_batches
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig
from corpusmill.prox.program_execution import decide_document
from corpusmill.prox.prompt_tokenizer import load_tokenizer
from corpusmill.prox.refiner import load_chunk_refiner, load_doc_refiner


def say(line: str) -> None:
    """Writes a line of progress."""
    print(line, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Task:
    """What a side does: ``official`` or ``ours``, on documents or chunks."""

    side: str
    stage: str
    folder: str
    inputs: list[Any]
    threads: int
    device: str
    dtype: str

    def runner(self) -> Callable[[list[Any]], list[Any]]:
        """Loads the model and returns a function from inputs to outputs."""
        torch.set_num_threads(self.threads)
        place = {"model": self.folder, "device": self.device, "dtype": self.dtype, "mode": "compat"}
        if self.stage == "documents":
            doc_config = DocRefinementConfig(**place)
            if self.side == "official":
                return official(self, doc_config)
            decide = load_doc_refiner(doc_config).decide
            return lambda texts: [d.decision for d in decide(texts)]
        config = ChunkRefinementConfig(**place)
        if self.side == "official":
            return official(self, config)
        write = load_chunk_refiner(config).write_programs
        return lambda chunks: [output.output for output in write(chunks)]


def official(task: Task, config: Any) -> Callable[[list[list[int]]], list[Any]]:
    """Returns greedy `generate` over prompts, read as the official code reads outputs."""
    model = load_causal_lm(task.folder, dtype=task.dtype, device=task.device)
    tokenizer = load_tokenizer(Path(task.folder))
    settings = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=config.max_new_tokens, eos_token_id=tokenizer.eos, pad_token_id=0
    )

    def run(prompts: list[list[int]]) -> list[Any]:
        outputs: dict[int, str] = {}
        lengths = [len(ids) + config.max_new_tokens for ids in prompts]
        for batch in plan_batches(lengths, config.batch_tokens):
            width = max(len(prompts[i]) for i in batch)
            ids_BT = torch.zeros((len(batch), width), dtype=torch.long)
            mask_BT = torch.zeros_like(ids_BT)
            for row, i in enumerate(batch):
                ids_BT[row, width - len(prompts[i]) :] = torch.tensor(prompts[i])
                mask_BT[row, width - len(prompts[i]) :] = 1
            with torch.inference_mode():
                new_BT = model.generate(
                    input_ids=ids_BT.to(model.device),
                    attention_mask=mask_BT.to(model.device),
                    generation_config=settings,
                )[:, width:].tolist()
            for i, ids in zip(batch, new_BT, strict=True):
                end = ids.index(tokenizer.eos) if tokenizer.eos in ids else len(ids)
                outputs[i] = tokenizer.decode(ids[:end]).strip(" ")
        texts = [outputs[i] for i in range(len(prompts))]
        if task.stage == "chunks":
            return texts
        return ["keep" if decide_document(text, "compat")[0] else "drop" for text in texts]

    return run


@contextmanager
def peak_pss() -> Iterator[list[int]]:
    """Yields a list whose only entry becomes the highest PSS (bytes) seen in the block, looked at twice a second."""
    peak, done = [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.5):
            with open("/proc/self/smaps_rollup", encoding="ascii") as file:
                pss = next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
            peak[0] = max(peak[0], pss * 1024)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def serve(connection: Any, task: Task) -> None:
    """Runs a task as often as the other end asks."""
    run = task.runner()
    run(task.inputs[:2])
    connection.send(None)
    while connection.recv():
        with peak_pss() as peak:
            cpu, wall = time.process_time(), time.perf_counter()
            outputs = run(task.inputs)
            measured = (time.process_time() - cpu, time.perf_counter() - wall)
        connection.send((measured, outputs, peak[0]))


def compare(name: str, tasks: Sequence[Task], repeats: int) -> tuple[float, int]:
    """Runs the official side and ours in turns; returns the ratio of median CPU seconds and the unequal outputs."""
    context = multiprocessing.get_context("spawn")
    ends, processes = [], []
    for task in tasks:
        here, there = context.Pipe()
        processes.append(context.Process(target=serve, args=(there, task)))
        processes[-1].start()
        here.recv()
        ends.append(here)
    seconds: list[list[float]] = [[], []]
    outputs: list[Any] = [[], []]
    for repeat in range(repeats):
        for side in (0, 1) if repeat % 2 == 0 else (1, 0):
            ends[side].send(True)
            (cpu, wall), outputs[side], peak = ends[side].recv()
            seconds[side].append(cpu)
            say(f"{name}, {tasks[side].side}: {cpu:.2f} CPU s, {wall:.2f} s, PSS {peak / 2**20:.0f} MB")
    for end, process in zip(ends, processes, strict=True):
        end.send(False)
        process.join()
    different = sum(a != b for a, b in zip(*outputs, strict=True))
    ratio = statistics.median(seconds[0]) / statistics.median(seconds[1])
    kinds = {str(o)[:40] for o in outputs[1]}
    say(f"{name}: ratio {ratio:.2f}, {different} of {len(outputs[0])} outputs differ, {len(kinds)} kinds of output")
    return ratio, different
