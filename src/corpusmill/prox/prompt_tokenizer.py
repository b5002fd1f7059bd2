"""Loads a refiner's tokenizer: SentencePiece directly where there is a ``tokenizer.model``, else ``tokenizer.json``.

The public refiners ship ``tokenizer.model`` alone. Later tokenizer packages convert it and then give other ids at
repeated spaces and behind special tokens; SentencePiece itself gives the official ids, and reads a literal ``</s>`` on
a page as plain text.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpusmill.errors import ModelError
from corpusmill.modeling.load import load_tokenizer as load_text_tokenizer
from corpusmill.prox.piece_ids import SPACE_MARK, piece_ids
from corpusmill.prox.prompts import PromptEncoder


@dataclass(frozen=True)
class RefinerTokenizer:
    """A tokenizer as the refiners use it.

    Attributes:
        encoder: Puts prompt ids together.
        encode_batch: Ids of many texts, without BOS and EOS.
        decode: Text of ids; special tokens are left out.
        eos: Id that ends an output, None where the tokenizer names none.
        n_vocab: Number of ids.
    """

    encoder: PromptEncoder
    encode_batch: Callable[[list[str]], list[list[int]]]
    decode: Callable[[list[int]], str]
    eos: int | None
    n_vocab: int

    def decision_ids(self) -> tuple[int, int] | None:
        """Returns the first ids of ``drop_doc()`` and ``keep_doc()``, None where they do not differ."""
        drop, keep = self.encoder.encode("drop_doc()")[:1], self.encoder.encode("keep_doc()")[:1]
        return (drop[0], keep[0]) if drop and keep and drop != keep else None


def load_tokenizer(folder: Path) -> RefinerTokenizer:
    """Returns the tokenizer of a model folder.

    Raises:
        ModelError: The folder has no tokenizer, or it cannot be read.
    """
    if (folder / "tokenizer.model").is_file():
        return _sentencepiece(folder / "tokenizer.model")
    return _tokenizer_json(folder)


def _sentencepiece(path: Path) -> RefinerTokenizer:
    from sentencepiece import SentencePieceProcessor

    try:
        model = SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise ModelError(
            f"{path.name} in model folder {path.parent.name!r} cannot be read: {str(error)[:200]}; "
            "expected a SentencePiece model"
        ) from error
    n_vocab, unknown = model.get_piece_size(), model.unk_id()

    def piece(text: str) -> int | None:
        index = model.piece_to_id(text)
        return None if index == unknown else int(index)

    def decode(ids: list[int]) -> str:
        return str(model.decode([i for i in ids if 0 <= i < n_vocab and not model.is_control(i)]))

    pieces = [model.id_to_piece(index) for index in range(n_vocab)]
    encode_many = _by_sentencepiece(model)
    merging = piece_ids(path.read_bytes(), encode_many)
    encode_batch = encode_many if merging is None else merging.encode_batch
    encoder = PromptEncoder(
        encode_batch=encode_batch,
        bos=_named(model.bos_id()),
        marked_bracket=piece(SPACE_MARK + "["),
        plain_bracket=piece("["),
        newline=piece("<0x0A>"),
        words_apart=all(SPACE_MARK not in piece.lstrip(SPACE_MARK) for piece in pieces),
    )
    return RefinerTokenizer(
        encoder=encoder,
        encode_batch=encode_batch,
        decode=decode,
        eos=_named(model.eos_id()),
        n_vocab=n_vocab,
    )


def _by_sentencepiece(model: Any) -> Callable[[list[str]], list[list[int]]]:
    return lambda texts: list(model.encode(texts, num_threads=1)) if texts else []


def _named(index: int) -> int | None:
    """Returns an id, None for the -1 that stands for a token that the model lacks."""
    return None if index < 0 else int(index)


def _tokenizer_json(folder: Path) -> RefinerTokenizer:
    tokenizer = load_text_tokenizer(str(folder))

    def decode(ids: list[int]) -> str:
        return str(tokenizer.backend.decode(ids, skip_special_tokens=True))

    return RefinerTokenizer(
        encoder=PromptEncoder(encode_batch=tokenizer.encode_batch, bos=_bos(folder, tokenizer.backend)),
        encode_batch=tokenizer.encode_batch,
        decode=decode,
        eos=tokenizer.eod_id,
        n_vocab=tokenizer.n_vocab,
    )


def _bos(folder: Path, backend: Any) -> int | None:
    """Returns the BOS id that ``tokenizer_config.json`` names, else that of ``config.json``, else None."""
    for name, key in (("tokenizer_config.json", "bos_token"), ("config.json", "bos_token_id")):
        path = folder / name
        value = json.loads(path.read_text(encoding="utf-8")).get(key) if path.is_file() else None
        if isinstance(value, dict):
            value = value.get("content")
        if isinstance(value, str):
            value = backend.get_vocab().get(value)
        if value is not None:
            return int(value)
    return None
