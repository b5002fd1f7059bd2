"""All scores in one pass against plain cross-entropy, separate passes, and the naive way over [B, T, V].

Fixed: a random decoder of GPT-2's 124M shape, vocabulary 50,257, 4 x 1,024 tokens, float32; NLL, EL2N, greedy hits and
first mismatch. Each side runs in a process of its own, the sides take turns, and the median counts. Times are CPU
seconds, memory is the peak of the process above what it holds with the model loaded. Top-k hits and memorization are
measured with ``--extras``, beside our pass alone.

    python benchmarks/scoring.py [--repeats 3] [--threads 1] [--rows 4] [--extras]

The only line of stdout is JSON: ``time_vs_ce``, ``time_vs_separate`` and ``memory_vs_naive``, each ours over theirs.
"""

import argparse
import ctypes
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from transformers import GPT2Config, GPT2LMHeadModel

from corpusmill.modeling.onednn_linear import use_onednn
from corpusmill.modeling.token_batches import plan_batches
from corpusmill.pruning.causal_head import CausalHead
from corpusmill.pruning.memorization import first_mismatches, memorization
from corpusmill.pruning.one_pass import EVERYTHING, score_batch
from corpusmill.pruning.running_scores import Wanted
from corpusmill.pruning.window_scorer import CPU_BUDGET

ROWS, TOKENS, PROMPT, CONTINUATION = 4, 1024, 32, 32
Scores = dict[str, torch.Tensor]
Side = Callable[[Any, torch.Tensor], Scores]


def ours(model: Any, ids_BT: torch.Tensor, wanted: Wanted = EVERYTHING) -> Scores:
    """One pass for all, in the batches that the stage makes on a CPU."""
    parts = []
    for rows in plan_batches([ids_BT.shape[1]] * len(ids_BT), CPU_BUDGET):
        part_BT = ids_BT[rows]
        parts.append(score_batch(model, part_BT, torch.ones_like(part_BT, dtype=torch.bool), wanted=wanted))
    hit = torch.cat([p.hit for p in parts])
    first = first_mismatches(hit, [ids_BT.shape[1]] * len(ids_BT), PROMPT, CONTINUATION)
    sums = {"nll": torch.cat([p.nll_sum for p in parts]), "el2n": torch.cat([p.el2n_sum for p in parts])}
    return {**sums, "hits": torch.cat([p.hits for p in parts]), "first_mismatch": torch.tensor(first)}


def top_k(model: Any, ids_BT: torch.Tensor) -> Scores:
    """Our pass with top-10 hits besides."""
    return ours(model, ids_BT, Wanted(top_k=10))


def decoded(model: Any, ids_BT: torch.Tensor) -> Scores:
    """Memorization by itself: the pass over the first tokens, and decoding of every row."""
    ids_BT = ids_BT[:, : PROMPT + CONTINUATION]
    mask_BT = torch.zeros_like(ids_BT, dtype=torch.bool)
    mask_BT[:, PROMPT:] = True
    scores = score_batch(model, ids_BT, mask_BT, keep_states=True, wanted=Wanted(nll=False, el2n=False))
    head, lengths = CausalHead.of(model), [ids_BT.shape[1]] * len(ids_BT)
    found = memorization(model, head, ids_BT, lengths, scores, PROMPT, CONTINUATION)
    return {"memorization": torch.tensor([one.score for one in found if one is not None])}


def cross_entropy(model: Any, ids_BT: torch.Tensor) -> Scores:
    """The loss that transformers computes: one mean over the batch."""
    return {"loss": model(input_ids=ids_BT, labels=ids_BT, use_cache=False).loss}


def separate(model: Any, ids_BT: torch.Tensor) -> Scores:
    """A forward pass for each score, as separate tools make them."""
    labels_BT = ids_BT[:, 1:]
    logits_BTV = model(input_ids=ids_BT, use_cache=False).logits[:, :-1]
    nll = F.cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten(), reduction="none").view(labels_BT.shape)
    del logits_BTV
    p_BTV = model(input_ids=ids_BT, use_cache=False).logits[:, :-1].softmax(-1)
    p_BTV.scatter_add_(-1, labels_BT[..., None], torch.full((*labels_BT.shape, 1), -1.0))
    el2n = p_BTV.norm(dim=-1)
    del p_BTV
    hits = model(input_ids=ids_BT, use_cache=False).logits[:, :-1].argmax(-1) == labels_BT
    start_BT = ids_BT[:, : PROMPT + CONTINUATION]
    start = model(input_ids=start_BT, use_cache=False).logits[:, :-1].argmax(-1) == start_BT[:, 1:]
    first = first_mismatches(start, [start_BT.shape[1]] * len(ids_BT), PROMPT, CONTINUATION)
    sums = {"nll": nll.double().sum(1), "el2n": el2n.double().sum(1), "hits": hits.sum(1)}
    return {**sums, "first_mismatch": torch.tensor(first)}


def naive(model: Any, ids_BT: torch.Tensor) -> Scores:
    """One pass, and the definitions written down over [B, T, V]."""
    labels_BT = ids_BT[:, 1:]
    logits_BTV = model(input_ids=ids_BT, use_cache=False).logits[:, :-1]
    log_p_BTV = logits_BTV.log_softmax(-1)
    nll = -log_p_BTV.gather(-1, labels_BT[..., None]).squeeze(-1)
    one_hot_BTV = F.one_hot(labels_BT, logits_BTV.shape[-1]).to(logits_BTV.dtype)
    el2n = (log_p_BTV.exp() - one_hot_BTV).norm(dim=-1)
    hits = logits_BTV.argmax(-1) == labels_BT
    first = first_mismatches(hits, [ids_BT.shape[1]] * len(ids_BT), PROMPT, CONTINUATION)
    sums = {"nll": nll.double().sum(1), "el2n": el2n.double().sum(1), "hits": hits.sum(1)}
    return {**sums, "first_mismatch": torch.tensor(first)}


SIDES: dict[str, Side] = {"ours": ours, "ce": cross_entropy, "separate": separate, "naive": naive}
EXTRAS: dict[str, Side] = {"top_k": top_k, "memorization": decoded}
OURS = ("ours", *EXTRAS)


def serve(connection: Any, side: str, threads: int, rows: int) -> None:
    """Runs a side as often as the other end asks; answers CPU seconds, peak bytes above the loaded model, scores."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config()).eval()
    if side in OURS:
        use_onednn(model)
    ids_BT = torch.randint(0, model.config.vocab_size, (rows, TOKENS), generator=torch.Generator().manual_seed(1))
    run = {**SIDES, **EXTRAS}[side]
    with torch.inference_mode():
        run(model, ids_BT[:1, :80])
        connection.send(None)
        while connection.recv():
            loaded = loaded_bytes()
            started = time.process_time()
            scores = run(model, ids_BT)
            seconds = time.process_time() - started
            connection.send((seconds, status_bytes("VmHWM") - loaded, {k: v.tolist() for k, v in scores.items()}))
            del scores


def loaded_bytes() -> int:
    """Returns the process's memory now, after freed memory went back and the mark of the peak was reset."""
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return status_bytes("VmRSS")


def status_bytes(name: str) -> int:
    """Returns a size of this process from /proc."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def measure(sides: list[str], repeats: int, threads: int, rows: int) -> dict[str, tuple[float, float, Any]]:
    """Returns median CPU seconds, median peak bytes and the scores of each side; the sides take turns."""
    context = multiprocessing.get_context("spawn")
    ends: dict[str, Any] = {}
    processes = []
    for side in sides:
        ends[side], there = context.Pipe()
        processes.append(context.Process(target=serve, args=(there, side, threads, rows)))
        processes[-1].start()
        ends[side].recv()
    results: dict[str, list[Any]] = {side: [] for side in sides}
    for repeat in range(repeats):
        for side in sides if repeat % 2 == 0 else sides[::-1]:
            ends[side].send(True)
            results[side].append(ends[side].recv())
            seconds, peak, _ = results[side][-1]
            print(f"{side}: {seconds:.2f} CPU s, peak {peak / 2**20:.0f} MB", file=sys.stderr, flush=True)
    for side, process in zip(sides, processes, strict=True):
        ends[side].send(False)
        process.join()
    return {
        side: (statistics.median(r[0] for r in found), statistics.median(r[1] for r in found), found[-1][2])
        for side, found in results.items()
    }


def largest_difference(ours_: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Returns the largest relative difference between two sides' scores."""
    pairs = [(a, b) for name in theirs for a, b in zip(ours_[name], theirs[name], strict=True)]
    return max(abs(a - b) / max(abs(b), 1.0) for a, b in pairs)


def main() -> None:
    """Measures and prints the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=ROWS, help="fewer than the fixed 4 for a quick look")
    parser.add_argument("--extras", action="store_true", help="measure top-k hits and memorization instead")
    options = parser.parse_args()
    sides = ["ours", *EXTRAS] if options.extras else list(SIDES)
    found = measure(sides, options.repeats, options.threads, options.rows)
    for side in sides:
        print(f"{side}: {found[side][0]:.2f} CPU s, peak {found[side][1] / 2**20:.0f} MB", file=sys.stderr)
    if options.extras:
        print(json.dumps({f"{side}_vs_ours": round(found[side][0] / found["ours"][0], 3) for side in EXTRAS}))
        return
    for other in ("separate", "naive"):
        difference = largest_difference(found["ours"][2], found[other][2])
        print(f"largest difference from {other}: {difference:.1e}", file=sys.stderr)
    ratios = {
        "time_vs_ce": found["ours"][0] / found["ce"][0],
        "time_vs_separate": found["ours"][0] / found["separate"][0],
        "memory_vs_naive": found["ours"][1] / found["naive"][1],
    }
    print(json.dumps({name: round(value, 4) for name, value in ratios.items()}))


if __name__ == "__main__":
    main()
