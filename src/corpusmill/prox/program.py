"""The typed operations of a ProX program, and their spelling.

Source: arXiv 2409.17115, Table 1. `keep_chunk`, `skip_chunk` and `untouch_doc` are three published spellings of one
operation. `remove_lines(all=True)` is accepted by the released executor and by no prompt.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Mode = Literal["strict", "compat"]
"""``compat`` executes as the released code does, quirks included; ``strict`` is a real parser with scoped edits."""

KEEP_NAMES = frozenset({"keep_chunk", "skip_chunk", "untouch_doc"})
"""Spellings of "leave this chunk as it is"."""


@dataclass(frozen=True)
class RemoveLines:
    """Delete lines ``first`` to ``last`` of the document, 0-based, both included; nothing where first > last."""

    first: int
    last: int


@dataclass(frozen=True)
class Normalize:
    """Replace every occurrence of ``source`` by ``target``; an empty target deletes."""

    source: str
    target: str = ""


@dataclass(frozen=True)
class RemoveAll:
    """Delete every line: of the chunk in strict mode, of the document in compat mode."""


@dataclass(frozen=True)
class KeepChunk:
    """Leave the chunk as it is."""


@dataclass(frozen=True)
class KeepDoc:
    """Keep the document."""


@dataclass(frozen=True)
class DropDoc:
    """Delete the document."""


Operation = RemoveLines | Normalize | RemoveAll | KeepChunk | KeepDoc | DropDoc


@dataclass(frozen=True)
class Diagnostics:
    """What a parser met that is no operation.

    Attributes:
        n_errors: Malformed calls, as each mode counts them towards the error budget.
        n_ignored: Lines or calls of no known name, and refused calls, which are silent.
        truncated: True where the last call is unfinished (strict mode).
    """

    n_errors: int = 0
    n_ignored: int = 0
    truncated: bool = False


@dataclass(frozen=True)
class Program:
    """A parsed program: its operations in order, and what was met beside them."""

    ops: tuple[Operation, ...] = ()
    diagnostics: Diagnostics = field(default_factory=Diagnostics)


def render_operation(op: Operation) -> str:
    """Returns the call that strict mode parses back into the same operation.

    A line break inside a string cannot be written, because a program line holds whole calls.

    Raises:
        ValueError: A string of the operation holds a line break, or a line number is outside 0 to 999,999.
    """
    if isinstance(op, RemoveLines):
        if not (0 <= op.first <= 999_999 and 0 <= op.last <= 999_999):
            raise ValueError(f"{op!r} cannot be written: line numbers have at most 6 digits and no sign")
        return f"remove_lines(start={op.first}, end={op.last})"
    if isinstance(op, Normalize):
        return f"normalize(source_str={_quoted(op.source)}, target_str={_quoted(op.target)})"
    if isinstance(op, RemoveAll):
        return "remove_lines(all=True)"
    if isinstance(op, KeepChunk):
        return "keep_chunk()"
    return "keep_doc()" if isinstance(op, KeepDoc) else "drop_doc()"


def render_program(ops: Iterable[Operation]) -> str:
    """Returns one call per line; `render_operation` says what cannot be written."""
    return "\n".join(render_operation(op) for op in ops)


def _quoted(text: str) -> str:
    if "\n" in text:
        raise ValueError(f"string {text[:80]!r} holds a line break and cannot stand in a program")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
