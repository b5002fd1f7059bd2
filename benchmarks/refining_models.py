"""The models of the refining benchmark: the public shape with answers set into random weights, a tiny trained one."""

import gzip
import io
import json
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sentencepiece
import torch
import transformers

from corpusmill.prox.chunking import Chunk
from corpusmill.prox.prompt_tokenizer import RefinerTokenizer, load_tokenizer
from corpusmill.prox.public_refiners import PUBLIC_CONFIG

SHARED = Path(os.environ.get("CORPUSMILL_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
PROGRAM_WORDS = ["drop_doc()", "keep_doc()", "keep_chunk()", "remove_lines(start=10, end=12)"]
TINY = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "vocab_size": 4096,
}


@dataclass(frozen=True)
class Page:
    """A labelled page: its lines, and the numbers of those to remove."""

    lines: tuple[str, ...]
    remove: frozenset[int]

    @property
    def text(self) -> str:
        """The lines joined."""
        return "\n".join(self.lines)

    def beginning(self, characters: int) -> "Page":
        """Returns whole lines up to a number of characters, at least one, itself cut if need be."""
        used = 0
        for number, line in enumerate(self.lines):
            used += len(line) + 1
            if used > characters:
                kept = self.lines[:number] or (line[:characters],)
                return Page(kept, frozenset(i for i in self.remove if i < len(kept)))
        return self

    def busiest(self, characters: int) -> "Page":
        """Returns the window of whole lines under a number of characters in which labels change most often."""
        best, most = self.beginning(characters), -1
        for start in range(0, len(self.lines), 2):
            window = Page(self.lines[start:], frozenset(i - start for i in self.remove if i >= start))
            window = window.beginning(characters)
            changes = sum((i in window.remove) != (i + 1 in window.remove) for i in range(len(window.lines) - 1))
            if changes > most:
                best, most = window, changes
        return best


def read_pages(name: str) -> list[Page]:
    """Returns the labelled pages of ``refine/NAME.jsonl.gz`` in the shared data."""
    with gzip.open(SHARED / "refine" / f"{name}.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    return [Page(tuple(row["lines"]), frozenset(row["remove"])) for row in rows]


def train_tokenizer(folder: Path, pages: Sequence[Page], vocabulary: int) -> None:
    """Writes a ``tokenizer.model`` with the settings of Llama's: BPE, bytes for rare characters, digits apart."""
    lines = [line for page in pages for line in page.lines if line.strip()] + PROGRAM_WORDS * 300
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=stream,
        model_type="bpe",
        vocab_size=vocabulary,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        allow_whitespace_only_pieces=True,
        character_coverage=0.99995 if vocabulary > 8000 else 0.98,
        num_threads=1,
        minloglevel=2,
    )
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(stream.getvalue())


# --- the 354M shape: random weights that answer in calls


def write_shape_model(folder: Path, answers: Sequence[Sequence[int]], prompts: Sequence[list[int]]) -> None:
    """Saves a random model of the public shape that answers each prompt with one of two sequences and the end token.

    Coordinate 0 of every embedding is large, and the output rows of both first tokens follow it, so one of them wins;
    which one depends on the document. Each answer token has a coordinate of its own, which the output row of its
    successor follows. No token may stand in both answers or twice in one, unless its successor is the same.
    """
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**PUBLIC_CONFIG)).eval()
    embedding, head = model.get_input_embeddings().weight.data, model.get_output_embeddings().weight.data
    embedding[:, 0] = 10
    successors = {a: b for answer in answers for a, b in zip(answer, [*answer[1:], 2], strict=True)}
    for coordinate, (token, successor) in enumerate(successors.items(), start=1):
        embedding[token] = 0
        embedding[token, coordinate] = 50
        head[successor, coordinate] = 5
    noise = torch.randn(PUBLIC_CONFIG["hidden_size"]) * 0.3
    noise[: len(successors) + 1] = 0
    first, second = answers[0][0], answers[1][0]
    head[[first, second], 0] = 5
    head[first] += noise
    head[second] -= noise
    states = []
    model.get_output_embeddings().register_forward_pre_hook(lambda _, inputs: states.append(inputs[0][0, -1]))
    with torch.inference_mode():
        for ids in prompts:
            model(input_ids=torch.tensor([ids]), logits_to_keep=1)
    state = torch.stack(states)
    head[first, 0] -= (state @ (head[first] - head[second])).median() / state[:, 0].mean()  # both answers occur
    model.save_pretrained(folder)


def shape_answers(tokenizer: RefinerTokenizer, stage: str) -> list[list[int]]:
    """Returns the two answers of a stage; they differ in the first token."""
    encode = tokenizer.encoder.encode
    if stage == "documents":
        return [encode("drop_doc()"), encode("keep_doc()")]
    newline = encode("\n")[-1]
    seen: set[int] = set()
    answers = []
    for text in ("remove_lines(start=0, end=5)", "keep_chunk()"):
        pieces, answer = encode(text), []
        for token in pieces:  # a token may have one successor only: the second time it is spelled as its byte
            letter = tokenizer.decode([token])
            answer.append(newline - ord("\n") + ord(letter) if token in seen else token)
            seen.add(token)
        answers.append(answer)
    return answers


# --- the tiny model: trained here


def program_of(page: Page) -> str:
    """Returns the page's labels as a program, the form that the public models write."""
    calls, start = [], None
    for number in range(len(page.lines) + 1):
        if number in page.remove and start is None:
            start = number
        elif number not in page.remove and start is not None:
            calls.append(f"remove_lines(start={start}, end={number - 1})")
            start = None
    return "\n".join(calls) or "keep_chunk()"


def train_tiny(folder: Path, pages: Sequence[Page], steps: int, say: Callable[[str], None]) -> None:
    """Trains a small Llama on both prompts and saves it beside its tokenizer.

    Many small steps: a model that has not learned the language writes runs of digits up to the limit, which no refiner
    does, and no draft foresees.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**PUBLIC_CONFIG | TINY))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    encoder = load_tokenizer(folder).encoder
    windows = [page.busiest(characters) for page in pages for characters in (200, 400, 700)]
    rng, started, losses = random.Random(0), time.process_time(), list[float]()
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 30) * (1.02 - step / steps)
        examples: list[tuple[list[int], str]] = []
        while len(examples) < 8:
            page = rng.choice(windows)
            chunk = encoder.chunk_ids(None, Chunk(0, page.lines), "compat")
            document = encoder.document_ids(page.text, "compat", 2000)[0]
            if len(chunk) < 450:
                decision = "drop_doc()" if 2 * len(page.remove) > len(page.lines) else "keep_doc()"
                examples += [(chunk, program_of(page)), (document, decision)]
        losses.append(_step(model, optimizer, [(p, [*encoder.encode(target), 2]) for p, target in examples]))
    spent, loss = time.process_time() - started, statistics.mean(losses[-20:])
    say(f"tiny model: {steps} steps in {spent:.0f} CPU s, loss {loss:.2f} nats per token")
    model.save_pretrained(folder)


def _step(model: Any, optimizer: Any, examples: list[tuple[list[int], list[int]]]) -> float:
    width = max(len(prompt) + len(target) for prompt, target in examples)
    ids_BT = torch.zeros((len(examples), width), dtype=torch.long)
    labels_BT = torch.full_like(ids_BT, -100)
    for row, (prompt, target) in enumerate(examples):
        ids_BT[row, : len(prompt) + len(target)] = torch.tensor(prompt + target)
        labels_BT[row, len(prompt) : len(prompt) + len(target)] = torch.tensor(target)
    hidden_BTM = model.model(input_ids=ids_BT).last_hidden_state[:, :-1]
    wanted = labels_BT[:, 1:] >= 0
    loss = torch.nn.functional.cross_entropy(model.lm_head(hidden_BTM[wanted]), labels_BT[:, 1:][wanted])
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())
