"""The prompts of the public ProX refiners: their exact text and their exact token ids.

Text: the Llama-2 chat format with a one-sentence system message, as the released code renders it with transformers
4.39. The released tokenizers carry no chat template, so it is rendered here. Ids: three encodings exist and differ at
the first token; they are put together by hand from plain SentencePiece ids, because tokenizer packages of later years
give other ids (at repeated spaces, at literals such as "</s>").
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from corpusmill.prox.chunking import Chunk

SYSTEM = "You are a helpful, respectful and honest assistant."
"""The whole system message of both stages."""

CHARACTERS_PER_ID = 64
"""More characters than one id stands for; beyond limit times this, text cannot reach the model and is not encoded."""

LIKELY_CHARACTERS_PER_ID = 5
"""Fewer characters stand for one id in most texts (Llama: 3.3 to 4.3 by language); the rest is encoded twice."""

SPARE_IDS = 16
"""Ids that a shortened text must have beyond the limit and the closing tag, so that its end is never used."""

_SYSTEM_BLOCK = f"<<SYS>>\n{SYSTEM}\n<</SYS>>\n\n"
_TAIL = " [/INST]"

PromptIds = Literal["compat", "sft"]
"""``compat``: ids of the official inference; ``sft``: ids of the training code (one BOS, only content is cut)."""


def render_prompt(user: str) -> str:
    """Returns the prompt text without the BOS literal; trailing whitespace of the user text goes, leading stays."""
    return f"[INST] {(_SYSTEM_BLOCK + user).strip()}{_TAIL}"


def render_chunk(chunk: Chunk) -> str:
    """Returns the user text of a chunk: its numbered lines between ``[doc]`` tags."""
    return "\n".join(["[doc]", *chunk.numbered(), "[/doc]"])


def _reachable(text: str, limit: int) -> str:
    """Returns the part of a text that can fill ``limit`` ids, cut in front of whitespace so that its ids are the same.

    A page of 10 MB would take ten seconds to encode, to use 2,000 ids of it.
    """
    end = limit * CHARACTERS_PER_ID
    if len(text) <= end:
        return text
    blank = next((i for i in range(end, min(len(text), 2 * end)) if text[i].isspace()), 2 * end)
    return text[:blank]


def _beginning(text: str, limit: int) -> str:
    """Returns the part of a text that will likely fill ``limit`` ids, cut in front of a single space."""
    end = limit * LIKELY_CHARACTERS_PER_ID
    stop = text.find(" ", end, 2 * end)
    return text if stop < 0 or text[stop - 1] == " " else text[:stop]


@dataclass(frozen=True)
class PromptEncoder:
    """Puts prompt ids together.

    Attributes:
        encode_batch: Ids of each of many texts, without BOS and EOS, markup literals as plain text.
        bos: Id of the BOS token, None where the model has none.
        marked_bracket: Id of ``[`` behind the space mark, None where the vocabulary has no such piece.
        plain_bracket: Id of ``[`` without a space mark, None where there is none.
        newline: Id of a line feed, None where it is no single piece.
        words_apart: True where no piece holds a space behind another character, so that a text cut in front of a space
            has the ids of the whole text up to there.
    """

    encode_batch: Callable[[list[str]], list[list[int]]]
    bos: int | None
    marked_bracket: int | None = None
    plain_bracket: int | None = None
    newline: int | None = None
    words_apart: bool = False

    def encode(self, text: str) -> list[int]:
        """Returns the ids of one text, without BOS and EOS."""
        return list(self.encode_batch([text])[0])

    def document_ids(self, text: str, style: PromptIds, limit: int) -> tuple[list[int], bool]:
        """Returns the ids of the document prompt and whether the document was cut.

        In ``compat`` the whole prompt is cut on the right, so a long document loses its closing tag, as in the
        official code. In ``sft`` the content is cut and the closing tag stays.
        """
        return self.all_document_ids([text], style, limit)[0]

    def all_document_ids(self, texts: Sequence[str], style: PromptIds, limit: int) -> list[tuple[list[int], bool]]:
        """Returns for each document what `document_ids` returns, encoded together.

        Of a long document only about the part that fits is encoded, where the vocabulary allows it.
        """
        reachable = [_reachable(text, limit) for text in texts]
        shown = [_beginning(text, limit) for text in reachable] if self.words_apart else reachable
        encoded = self.encode_batch([render_prompt(text) for text in shown])
        enough = limit + len(self._tail) + SPARE_IDS
        short = [i for i, ids in enumerate(encoded) if len(ids) < enough and len(shown[i]) < len(reachable[i])]
        again = self.encode_batch([render_prompt(reachable[i]) for i in short])
        for index, ids in zip(short, again, strict=True):
            encoded[index] = ids
        return [self._document(ids, style, limit) for ids in encoded]

    def _document(self, ids: list[int], style: PromptIds, limit: int) -> tuple[list[int], bool]:
        if style == "sft":
            ids = self._behind_bos(ids, 1)
            if len(ids) <= limit:
                return ids, False
            return ids[: max(1, limit - len(self._tail))] + self._tail, True
        if ids and ids[0] == self.marked_bracket and self.plain_bracket is not None:
            ids[0] = self.plain_bracket  # the slow tokenizer of the official code put no space mark behind BOS
        ids = self._behind_bos(ids, 1)
        return ids[:limit], len(ids) > limit

    def chunk_ids(self, line_ids: list[list[int]] | None, chunk: Chunk, style: PromptIds) -> list[int]:
        """Returns the ids of a chunk prompt; a prompt is never cut.

        Args:
            line_ids: Ids of each numbered line where they are at hand; then nothing but the frame is encoded.
            chunk: The window of lines.
            style: ``compat`` has two BOS (the official engine added one to the rendered one), ``sft`` one.
        """
        ids = self._assembled(line_ids) if line_ids is not None else None
        if ids is None:
            ids = self.encode(render_prompt(render_chunk(chunk)))
        return self._behind_bos(ids, 1 if style == "sft" else 2)

    def _behind_bos(self, ids: list[int], n: int) -> list[int]:
        return ids if self.bos is None else [self.bos] * n + ids

    def _assembled(self, line_ids: list[list[int]]) -> list[int] | None:
        """Returns the prompt from ids of its lines, None where this vocabulary does not allow it."""
        if self.newline is None:
            return None
        head, marked, plain, closing = self._chunk_frame
        ids, n = list(head), len(marked)
        for line in line_ids:
            if line[:n] != marked:
                return None
            ids += plain
            ids += line[n:]
        return ids + closing

    @cached_property
    def _tail(self) -> list[int]:
        return self.encode(_TAIL.strip())

    @cached_property
    def _chunk_frame(self) -> tuple[list[int], list[int], list[int], list[int]]:
        """Ids around a chunk's lines.

        These are: everything in front of the lines; the bracket that begins a line encoded alone; the line feed and
        bracket that stand for it in a prompt; everything behind the lines.
        """
        head = self.encode(f"[INST] {_SYSTEM_BLOCK}[doc]")
        return head, self.encode("["), self._behind_line("\n["), self._behind_line(f"\n[/doc]{_TAIL}")

    def _behind_line(self, text: str) -> list[int]:
        """Returns the ids of a text that begins with a line feed, as they are behind another line."""
        ids = self.encode(text)
        return ids[ids.index(self.newline) :] if self.newline in ids else ids

    def assembles(self) -> bool:
        """Returns whether ids of lines put together equal the ids of the whole prompt, on probes with hard places."""
        lines = ("Home | a  b", "", "  two blanks", "[x] 12,345 \u4f60\u597d </s>", "tab\tend ", "a" * 50)
        for first in (0, *range(98, 1000, 100)):  # a vocabulary may join the bracket to some digits
            chunk = Chunk(first, lines)
            assembled = self._assembled([self.encode(line) for line in chunk.numbered()])
            if assembled is None or assembled != self.encode(render_prompt(render_chunk(chunk))):
                return False
        return True
