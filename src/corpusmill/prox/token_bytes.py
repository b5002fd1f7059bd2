"""The bytes that each token id stands for: what grammar, drafts and loop detection read instead of decoded text.

Known are SentencePiece models, and ``tokenizer.json`` files of the byte-level kind (GPT-2, Llama 3, Qwen) and of the
SentencePiece kind (Llama 2, Mistral, Gemma). Of other tokenizers nothing is known, and decoding goes on without.
"""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

from corpusmill.prox.piece_ids import SPACE_MARK

TokenBytes = tuple[bytes | None, ...]
"""Bytes by token id; None for control tokens, which have no text, and for ids that the tokenizer does not use."""

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def token_bytes(folder: Path) -> TokenBytes | None:
    """Returns the bytes of every token of a model folder's tokenizer, None where its kind is not known.

    A space in front of a text's first token is part of the token here, though decoding drops it.
    """
    if (folder / "tokenizer.model").is_file():
        return _sentencepiece(folder / "tokenizer.model")
    if (folder / "tokenizer.json").is_file():
        return _tokenizer_json(json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")))
    return None


def _sentencepiece(path: Path) -> TokenBytes:
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(path))
    return tuple(
        None
        if model.is_control(i) or model.is_unknown(i) or model.is_unused(i)
        else _marked_piece(model.id_to_piece(i), model.is_byte(i))
        for i in range(model.get_piece_size())
    )


def _marked_piece(piece: str, is_byte: bool) -> bytes:
    byte = _BYTE_PIECE.fullmatch(piece) if is_byte else None
    return bytes([int(byte[1], 16)]) if byte is not None else piece.replace(SPACE_MARK, " ").encode()


def _tokenizer_json(spec: dict[str, Any]) -> TokenBytes | None:
    vocabulary: Any = spec["model"].get("vocab", {})
    if not isinstance(vocabulary, dict):  # a unigram model: pieces with their scores, in the order of their ids
        vocabulary = {piece: i for i, (piece, _) in enumerate(vocabulary)}
    added = {token["id"]: None if token["special"] else token["content"].encode() for token in spec["added_tokens"]}
    kinds = _decoder_kinds(spec.get("decoder") or {})
    n = max([*vocabulary.values(), *added], default=-1) + 1
    pieces: list[bytes | None] = [None] * n
    for piece, i in vocabulary.items():
        if "ByteLevel" in kinds:
            pieces[i] = _byte_level_piece(piece)
        elif kinds & {"ByteFallback", "Metaspace"}:
            pieces[i] = _marked_piece(piece, _BYTE_PIECE.fullmatch(piece) is not None)
        else:
            return None
    for i, content in added.items():
        pieces[i] = content
    return tuple(pieces)


def _decoder_kinds(decoder: dict[str, Any]) -> set[str]:
    return {decoder.get("type", "")} | {part["type"] for part in decoder.get("decoders", ())}


@cache
def _byte_alphabet() -> dict[str, int]:
    """Returns the bytes of GPT-2's alphabet: printable Latin-1 stands for itself, the rest follows from 256 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def _byte_level_piece(piece: str) -> bytes | None:
    alphabet = _byte_alphabet()
    return bytes(alphabet[c] for c in piece) if all(c in alphabet for c in piece) else None
