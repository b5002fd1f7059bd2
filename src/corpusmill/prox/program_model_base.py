"""What a program-writing model starts from: any causal language model, or a small Llama from scratch.

A base from scratch gets the public refiners' kind of tokenizer (SentencePiece, BPE, digits apart, bytes as a last
resort), so that its prompts are put together as theirs are.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from corpusmill.batches import replace_surrogates
from corpusmill.errors import ConfigError, ModelError
from corpusmill.modeling.load import load_causal_lm, model_folder
from corpusmill.prox.prompt_tokenizer import RefinerTokenizer, load_tokenizer
from corpusmill.prox.prompts import render_prompt
from corpusmill.prox.refiner import folder_digest

NEW = "new:"
"""Prefix of a base that is configured here and starts from random weights."""
TOKENIZER_FILES = (
    "tokenizer.model",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
TOKENIZER_CHARACTERS = 20_000_000
"""Text that a tokenizer is trained on at most; more changes few merges and takes minutes."""
_LONGEST_LINE = 1000
_CALLS = ("drop_doc()", "keep_doc()", "keep_chunk()", "remove_lines(start=10, end=12)")
# a bracket stays a piece of its own, so that ids of lines can be put together to ids of a prompt
_FRAME = (*_CALLS, *render_prompt("").replace("[", "[ ").split("\n"))
_FRAME_REPEATS = 100


@dataclass(frozen=True)
class LlamaShape:
    """Shape of a Llama: width, blocks, heads, key-value heads, feed-forward width, whether its two tables are one."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    tied: bool = True


SHAPES: dict[str, LlamaShape] = {
    "test": LlamaShape(64, 2, 4, 1, 128),
    "tiny": LlamaShape(128, 4, 4, 1, 352),
    "30m": LlamaShape(512, 8, 8, 2, 1408),
    "125m": LlamaShape(768, 12, 12, 4, 2304),
    "350m": LlamaShape(1280, 24, 16, 1, 2048, tied=False),
}
"""Names behind ``new:``; ``350m`` is the shape of the public refiners (354,284,800 parameters at 32,000 ids)."""


@dataclass(frozen=True)
class Base:
    """A model to fine-tune.

    Attributes:
        model: In float32, on its device.
        tokenizer: As the refiners use it.
        tokenizer_folder: Where the tokenizer's files are.
        name: For the record: ``name@digest`` of a folder, or ``new:PRESET``; never a machine path.
        is_new: Whether the weights are random.
    """

    model: Any
    tokenizer: RefinerTokenizer
    tokenizer_folder: Path
    name: str
    is_new: bool

    @property
    def context(self) -> int | None:
        """Positions of the model, None where its config names none."""
        return getattr(self.model.config, "max_position_embeddings", None)


def base_name(base: str) -> str:
    """Returns the name of a base for records; a folder or hub model is read once for its digest.

    Raises:
        ConfigError: The preset is unknown.
        ModelError: There is no such model.
    """
    if base.startswith(NEW):
        shape_of(base)
        return base
    folder = model_folder(base)
    name = folder.name if Path(base).expanduser().is_dir() else base
    return f"{name}@{folder_digest(folder)[:12]}"


def load_base(
    base: str,
    name: str,
    tokenizer_text: Callable[[], Iterable[str]],
    scratch: Path,
    *,
    n_vocab: int,
    context: int,
    seed: int,
    device: str,
) -> Base:
    """Returns the model to fine-tune.

    Args:
        base: Folder, hub id, ``bundled:NAME`` or ``new:PRESET``.
        name: Its `base_name`.
        tokenizer_text: Gives the text for the tokenizer of a new base.
        scratch: Folder that keeps that tokenizer, so that a resumed run has the same.
        n_vocab: Ids of that tokenizer at most.
        context: Positions of a new base.
        seed: Of its weights.
        device: Torch device.

    Raises:
        ModelError: The base cannot be loaded, or its tokenizer is of another model.
    """
    if base.startswith(NEW):
        folder = scratch / "tokenizer"
        if not folder.is_dir():
            write_sentencepiece(folder, tokenizer_text(), n_vocab, context)
        tokenizer = load_tokenizer(folder)
        model = new_llama(shape_of(base), tokenizer.n_vocab, context, seed).to(device)
        return Base(model, tokenizer, folder, name, is_new=True)
    folder = model_folder(base)
    tokenizer = load_tokenizer(folder)
    model = load_causal_lm(str(folder), dtype="float32", device=device)
    n_embeddings = model.get_input_embeddings().num_embeddings
    if tokenizer.n_vocab > n_embeddings:
        raise ModelError(
            f"base {name!r} embeds {n_embeddings} ids, its tokenizer has {tokenizer.n_vocab}; the tokenizer belongs to "
            "another model"
        )
    return Base(model, tokenizer, folder, name, is_new=False)


def shape_of(base: str) -> LlamaShape:
    """Returns the shape behind ``new:PRESET``.

    Raises:
        ConfigError: There is no such preset.
    """
    name = base.removeprefix(NEW)
    if name not in SHAPES:
        raise ConfigError(f"base={base!r} is unknown; expected {NEW} and one of {sorted(SHAPES)}, a folder or a hub id")
    return SHAPES[name]


def new_llama(shape: LlamaShape, n_vocab: int, context: int, seed: int) -> Any:
    """Returns a Llama with random weights for the tokenizer of `write_sentencepiece`; equal seeds give equal ones."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=n_vocab,
                hidden_size=shape.hidden,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                num_key_value_heads=shape.kv_heads,
                intermediate_size=shape.feed_forward,
                max_position_embeddings=context,
                rms_norm_eps=1e-5,
                tie_word_embeddings=shape.tied,
                bos_token_id=1,
                eos_token_id=2,
            )
        )


def write_sentencepiece(folder: Path, texts: Iterable[str], n_vocab: int, context: int) -> None:
    """Trains a tokenizer on texts and writes its folder, which appears whole or not at all.

    The calls of the program language and the prompt's frame are mixed in: each decision begins with a piece of its own,
    and the frame is short.

    Raises:
        ModelError: The texts are too few for a tokenizer.
    """
    from sentencepiece import SentencePieceTrainer

    sentences = list(_sentences(texts))  # an error in reading them is not the tokenizer's
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        with (part / "tokenizer.model").open("wb") as stream:
            SentencePieceTrainer.train(
                sentence_iterator=iter(sentences),
                model_writer=stream,
                model_type="bpe",
                vocab_size=n_vocab,
                hard_vocab_limit=False,
                byte_fallback=True,
                split_digits=True,
                normalization_rule_name="identity",
                remove_extra_whitespaces=False,
                allow_whitespace_only_pieces=True,
                character_coverage=0.9995,
                num_threads=1,
                minloglevel=2,
            )
    except RuntimeError as error:
        raise ModelError(
            f"a tokenizer of {n_vocab} ids cannot be trained: {str(error)[:300]}; give more text"
        ) from error
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": False,
        "model_max_length": context,
    }
    (part / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    os.replace(part, folder)


def _sentences(texts: Iterable[str]) -> Iterator[str]:
    for _ in range(_FRAME_REPEATS):
        yield from _FRAME
    spent = 0
    for text in texts:
        for line in text.split("\n"):
            if spent > TOKENIZER_CHARACTERS:
                return
            clean = replace_surrogates(line[:_LONGEST_LINE])[0].replace("\0", " ")
            spent += len(clean)
            if clean.strip():
                yield clean


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copies a model's tokenizer files as they are: written anew by a package they could give other ids."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
