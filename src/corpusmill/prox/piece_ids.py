"""Ids of texts by a SentencePiece vocabulary: the same ids, about ten times as fast.

A vocabulary of the kind that Llama has (byte pairs, bytes for rare characters, text as it is) is merged by
`corpusmill.prox.piece_merging`. The model file says whether it is of that kind, and some hard texts are tried when it
is loaded; any other vocabulary is left to SentencePiece, and so is a text with an overlong word.

Cost: 4.5 MB for a table of characters and some 4 MB for the pairs of 32,000 pieces.
"""

import importlib.util
import logging
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

log = logging.getLogger(__name__)

SPACE_MARK = "\u2581"
"""How SentencePiece writes a space inside a piece; on a page it reads as one too."""

EncodeMany = Callable[[list[str]], list[list[int]]]

_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6  # types of pieces in a model file
_BPE = 2
_TRIALS = (
    "",
    " ",
    "a",
    "  a   b ",
    "one\ttab \t and\r\nbreaks\n\n  \n x\n",
    "[007]Home | a  b 12,345 3.5e7 0x1F",
    "a\u00a0 b \u00a0c\u3000 d\u2028 e\u200b f",
    "\ufb01ne caf\u00e9 e\u0301 \uff21\uff11 \u00bd \u4f60\u597d\uff0c\u4e16\u754c \u0661\u0662",
    "</s> <s>[INST] <unk> <0x0A> ... ---- ====",
    "\x00\x01 \x7f\U0001f600 \ufffd \ufeff\u2581 \u2581a",
)


@dataclass(frozen=True)
class _Piece:
    text: str
    score: float
    kind: int


class PieceIds:
    """Encodes texts by merging pairs of pieces.

    Args:
        pieces: All pieces, in the order of their ids.
        encode_many: Ids of each of many texts by SentencePiece, for texts with an overlong word.
    """

    def __init__(self, pieces: list[_Piece], encode_many: EncodeMany) -> None:
        from corpusmill.prox.piece_merging import enter_pairs, merge_texts

        self.encode_many, self._merge_texts = encode_many, merge_texts
        ids = {piece.text: index for index, piece in enumerate(pieces) if piece.kind == _NORMAL}
        self.space = ids[SPACE_MARK]
        self.first_byte = next(index for index, piece in enumerate(pieces) if piece.kind == _BYTE)
        self.rank_V = np.array([-piece.score for piece in pieces], np.int32)
        self.of_character = np.full(0x110000, -1, np.int32)
        for text, index in ids.items():
            if len(text) == 1:
                self.of_character[ord(text)] = index
        self.of_character[ord(" ")] = self.space
        self.begins_V = np.zeros(len(pieces), np.bool_)
        inner = _characters_behind(ids)
        self.begins_V[[i for text, i in ids.items() if len(text) == 1 and text != SPACE_MARK and text not in inner]] = 1
        pairs = np.array(list(_pairs(ids)), np.int32).reshape(-1, 3)
        n_slots = 1 << (2 * len(pairs) + 2).bit_length()
        self.keys_S, self.wholes_S = np.full(n_slots, 0xFFFF_FFFF_FFFF_FFFF, np.uint64), np.zeros(n_slots, np.int32)
        left_P, right_P, whole_P = (np.ascontiguousarray(column) for column in pairs.T)
        enter_pairs(left_P, right_P, whole_P, self.keys_S, self.wholes_S)

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Returns the ids of each text."""
        codes_N = np.frombuffer("".join([" " + text for text in texts]).encode("utf-32-le"), np.uint32)
        starts_T = np.fromiter(accumulate((len(text) + 1 for text in texts), initial=0), np.int64, len(texts) + 1)
        ids = np.empty(4 * len(codes_N), np.int32)
        ends_T, refused_T = np.empty(len(texts), np.int64), np.zeros(len(texts), np.bool_)
        self._merge_texts(
            codes_N, starts_T, self.of_character, self.begins_V, self.rank_V, self.keys_S, self.wholes_S,
            self.space, self.first_byte, ids, ends_T, refused_T,
        )  # fmt: skip
        flat, ends = ids[: int(ends_T[-1]) if texts else 0].tolist(), ends_T.tolist()
        found = [flat[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        refused = refused_T.nonzero()[0].tolist()
        for index, answer in zip(refused, self.encode_many([texts[index] for index in refused]), strict=True):
            found[index] = answer
        return found


def piece_ids(model: bytes, encode_many: EncodeMany) -> PieceIds | None:
    """Returns the encoder for a model file, None where SentencePiece must do it.

    It must where the vocabulary is of another kind, numba is not there, or kernels cannot be compiled or kept.

    Args:
        model: The model file (a `ModelProto` of SentencePiece).
        encode_many: Ids of each of many texts by SentencePiece.
    """
    pieces, trainer, normalizer = _read(model)
    if importlib.util.find_spec("numba") is None or not _merges_pairs(trainer, normalizer) or not _is_plain(pieces):
        return None
    try:
        encoder = PieceIds(pieces, encode_many)
    except (ImportError, RuntimeError, OSError) as error:  # for instance no folder that kernels can be kept in
        log.warning("SentencePiece encodes, some ten times slower than kernels, which cannot be loaded: %s", error)
        return None
    texts = [*_TRIALS, *(line for text in _TRIALS for line in text.split("\n"))]
    return encoder if encoder.encode_batch(texts) == encode_many(texts) else None


def _merges_pairs(trainer: dict[int, Any], normalizer: dict[int, Any]) -> bool:
    """Returns whether texts are merged by pairs, as they are but for a space in front, unknown characters as bytes."""
    as_it_is = not normalizer.get(2) and normalizer.get(3, 1) and not normalizer.get(4, 1) and normalizer.get(5, 1)
    return bool(trainer.get(3) == _BPE and trainer.get(35) and not trainer.get(24) and as_it_is)


def _is_plain(pieces: list[_Piece]) -> bool:
    """Returns whether words of this vocabulary merge by themselves, from characters that are all pieces."""
    normal = {piece.text: piece for piece in pieces if piece.kind == _NORMAL}
    first = next((index for index, piece in enumerate(pieces) if piece.kind == _BYTE), len(pieces))
    all_bytes = [piece.text for piece in pieces[first : first + 256]] == [f"<0x{byte:02X}>" for byte in range(256)]
    scores = {piece.score for piece in normal.values()}
    ranked = len(scores) == len(normal) and all(score.is_integer() and -score < 1 << 30 for score in scores)
    characters = {character for text in normal for character in text}
    known = SPACE_MARK in normal and " " not in characters and characters <= normal.keys()
    kinds = {piece.kind for piece in pieces} <= {_NORMAL, _UNKNOWN, _CONTROL, _BYTE}
    return all_bytes and ranked and known and kinds and SPACE_MARK not in _characters_behind(normal)


def _characters_behind(texts: Any) -> set[str]:
    """Returns the characters that stand behind another one in a piece, leading spaces aside."""
    behind: set[str] = set()
    for text in texts:
        behind.update(text.lstrip(SPACE_MARK)[text[:1] != SPACE_MARK :])
    return behind


def _pairs(ids: dict[str, int]) -> Iterator[tuple[int, int, int]]:
    """Yields every two pieces that make a third, with its id."""
    for text, whole in ids.items():
        for cut in range(1, len(text)):
            left, right = ids.get(text[:cut]), ids.get(text[cut:])
            if left is not None and right is not None:
                yield left, right, whole


def _read(model: bytes) -> tuple[list[_Piece], dict[int, Any], dict[int, Any]]:
    """Returns the pieces of a model file, and the settings of its trainer and normalizer by field number."""
    pieces: list[_Piece] = []
    settings: dict[int, dict[int, Any]] = {2: {}, 3: {}}
    for number, value in _fields(model):
        if number == 1:
            piece = dict(_fields(value))
            (score,) = struct.unpack("<f", piece.get(2, bytes(4)))
            pieces.append(_Piece(piece.get(1, b"").decode("utf-8"), score, piece.get(3, _NORMAL)))
        elif number in settings:
            settings[number].update(_fields(value))
    return pieces, settings[2], settings[3]


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Yields number and value of each field of a Protocol Buffers message: whole numbers, else bytes."""
    place = 0
    while place < len(message):
        tag, place = _varint(message, place)
        kind = tag & 7
        if kind == 0:
            value, place = _varint(message, place)
            yield tag >> 3, value
            continue
        n = {1: 8, 5: 4}.get(kind, 0)
        if kind == 2:
            n, place = _varint(message, place)
        yield tag >> 3, message[place : place + n]
        place += n


def _varint(message: bytes, place: int) -> tuple[int, int]:
    """Returns the whole number at a place, seven bits a byte, lowest first, and the place behind it."""
    value = shift = 0
    while True:
        byte = message[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
