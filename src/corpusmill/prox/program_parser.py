r"""Parses program text into operations; never evaluates it.

Compat mode reproduces the released parser (GAIR-NLP/ProX, `utils/chunk_utils.py`): prefix tests in column 0, argument
text up to the first ")", pieces split on "," and "=". Strict mode is a scanner for this grammar:

    program  := { blank | comment | fence | call+ }      lines, each stripped
    call     := name "(" [ arg { "," arg } ] ")" [";"]
    arg      := [ident "="] ( int | string | bool )      keyword wins over position
    string   := '..' or ".."                             escapes \" \' and \\ only
    int      := 1 to 6 ASCII digits

A literal "\n" (two characters) is never decoded: a program must not insert line breaks and so shift line numbers.
"""

import re
from dataclasses import dataclass

from corpusmill.prox.program import (
    KEEP_NAMES,
    Diagnostics,
    DropDoc,
    KeepChunk,
    KeepDoc,
    Mode,
    Normalize,
    Operation,
    Program,
    RemoveAll,
    RemoveLines,
)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_INT = re.compile(r"[0-9]{1,6}")
_KEYWORD = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)[ \t\n]*=(?!=)[ \t\n]*")
_BLANKS = re.compile(r"[ \t\r\n]*")
_SEPARATORS = re.compile(r"[ \t\r\n;]*")
_BARE = re.compile(r"[^,()\n]*")
_ESCAPE = re.compile(r"\\([\"'\\])")
_STRINGS = {
    '"': re.compile(r'"([^"\\\n]*(?:\\[^\n][^"\\\n]*)*)"'),
    "'": re.compile(r"'([^'\\\n]*(?:\\[^\n][^'\\\n]*)*)'"),
}
_SOURCE_OPENS = re.compile(r"[ \t]*(?:source_str[ \t]*=[ \t]*)?\"")
_EDITS = frozenset({"remove_lines", "normalize"})
_NAMES = _EDITS | KEEP_NAMES | {"keep_doc", "drop_doc"}


def parse_program(text: str, mode: Mode) -> Program:
    """Returns the operations of a program and what was met beside them; never raises on any text.

    Args:
        text: Output of a refiner for one chunk or document.
        mode: ``compat`` or ``strict``, see the module.
    """
    return _parse_compat(text) if mode == "compat" else _StrictParser(text).parse()


# Compat mode ---------------------------------------------------------------------------------------------------------


def _parse_compat(text: str) -> Program:
    ops: list[Operation] = []
    errors = ignored = 0
    for line in text.strip(" ").split("\n"):
        op, n_errors = _compat_line(line)
        errors += n_errors
        if op is not None:
            ops.append(op)
        elif not n_errors and line.strip():
            ignored += 1
    return Program(tuple(ops), Diagnostics(n_errors=errors, n_ignored=ignored))


def _compat_line(line: str) -> tuple[Operation | None, int]:
    """Returns the operation of one program line and its errors (0 to 2)."""
    if line.startswith("remove_lines"):
        return (RemoveAll(), 0) if "all=True" in line else _compat_remove_lines(line)
    if line.startswith("normalize"):
        return _compat_normalize(line)
    if line.startswith(tuple(KEEP_NAMES)):
        return KeepChunk(), 0
    if line.startswith("keep_doc"):
        return KeepDoc(), 0
    return (DropDoc(), 0) if line.startswith("drop_doc") else (None, 0)


def _compat_arguments(line: str) -> tuple[list[str] | None, int]:
    """Returns the pieces between the first "(" and the first ")", or None without "(", and the errors so far."""
    start = line.find("(")
    if start < 0:
        return None, 1
    end = line.find(")")  # without one the official slice ends at -1: the last character is lost
    return line[start + 1 : end].split(","), int(end < 0)


def _compat_value(piece: str) -> str | None:
    """Returns what stands between the first and second "=", None without "="."""
    parts = piece.split("=")
    return parts[1] if len(parts) > 1 else None


def _compat_remove_lines(line: str) -> tuple[Operation | None, int]:
    pieces, errors = _compat_arguments(line)
    if pieces is None:
        return None, errors
    numbers = []
    for piece in pieces[:2]:
        value = _compat_value(piece)
        try:
            numbers.append(int(value if value is not None else ""))
        except ValueError:
            break
    if len(numbers) < 2:
        return None, errors + 1
    return RemoveLines(numbers[0], numbers[1]), errors


def _compat_normalize(line: str) -> tuple[Operation | None, int]:
    pieces, errors = _compat_arguments(line)
    if pieces is None:
        return None, errors
    if len(pieces) > 2:
        return None, errors
    values = [_compat_value(piece) for piece in pieces]
    strings = [value.strip('"') for value in values if value is not None]
    if len(strings) < len(pieces):
        return None, errors + 1
    if len(strings) == 1:
        return (Normalize(strings[0]), errors) if strings[0] else (None, errors)
    if strings[0] in ("", " "):  # only the form with a target has this guard
        return None, errors
    return Normalize(strings[0], strings[1]), errors


# Strict mode ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Argument:
    """One argument: its keyword ("" where positional) and its value; None is a value that is no literal."""

    keyword: str
    value: int | str | bool | None


@dataclass(frozen=True)
class _Scan:
    """How the scan of one argument list ended, and where."""

    state: str  # "closed", "unfinished" or "malformed"
    position: int
    arguments: tuple[_Argument, ...] = ()


class _StrictParser:
    """Reads a program line by line; a call left open is completed with the following line where that closes it."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.split("\n")]
        while lines and not lines[-1]:
            lines.pop()
        self.lines = lines
        self.ops: list[Operation] = []
        self.errors = 0
        self.ignored = 0
        self.truncated = False

    def parse(self) -> Program:
        index = 0
        carried = ""  # the open call that the next line completes
        while index < len(self.lines):
            line = carried + self.lines[index]
            unfinished = self._read_line(line)
            carried = ""
            if unfinished is not None:
                if index + 1 == len(self.lines):
                    self.truncated = True
                elif _closes(line[unfinished:] + "\n" + self.lines[index + 1]):
                    carried = line[unfinished:] + "\n"
                else:
                    self.errors += 1
            index += 1
        return Program(tuple(self.ops), Diagnostics(self.errors, self.ignored, self.truncated))

    def _read_line(self, line: str) -> int | None:
        """Reads the calls of a line; returns where an unfinished call begins, else None."""
        position = 0
        while True:
            position = _SEPARATORS.match(line, position).end()  # type: ignore[union-attr]  # matches the empty string
            if position == len(line) or line.startswith(("#", "```"), position):
                return None
            name = _NAME.match(line, position)
            if name is None:
                self.ignored += 1
                return None
            after = self._read_call(line, name)
            if after < 0:
                return position
            if after == len(line):
                return None
            position = after

    def _read_call(self, line: str, name: re.Match[str]) -> int:
        """Reads one call; returns where to go on, the line's length to leave it, or -1 for an unfinished call."""
        known = name[0] in _NAMES
        opening = _BLANKS.match(line, name.end()).end()  # type: ignore[union-attr]  # matches the empty string
        if not line.startswith("(", opening):
            self.errors += name[0] in _EDITS
            self.ignored += name[0] not in _EDITS
            return len(line)
        scan = _scan_arguments(line, opening + 1)
        if name[0] == "normalize" and scan.state == "malformed":
            scan = _scan_unescaped_quotes(line, opening + 1) or scan
        if not known:
            self.ignored += 1
            return scan.position if scan.state == "closed" else len(line)
        if scan.state == "unfinished":
            return -1
        op = _operation(name[0], scan.arguments) if scan.state == "closed" else None
        if op is None:
            self.errors += 1
        else:
            self.ops.append(op)
        return scan.position


def _closes(text: str) -> bool:
    """Returns whether the call with which a text of two lines begins is complete."""
    name = _NAME.match(text)
    if name is None:
        return False
    opening = _BLANKS.match(text, name.end()).end()  # type: ignore[union-attr]  # matches the empty string
    return _scan_arguments(text, opening + 1).state == "closed"


def _scan_arguments(line: str, position: int) -> _Scan:
    """Returns the arguments from behind "(" up to and including ")".

    A line break may stand between tokens but not inside a string.
    """
    arguments: list[_Argument] = []
    while True:
        position = _BLANKS.match(line, position).end()  # type: ignore[union-attr]  # matches the empty string
        if line.startswith(")", position):
            return _Scan("closed", position + 1, tuple(arguments))
        keyword = _KEYWORD.match(line, position)
        if keyword is not None:
            position = keyword.end()
        value, position = _scan_value(line, position)
        if position < 0:
            return _Scan("unfinished", len(line))
        position = _BLANKS.match(line, position).end()  # type: ignore[union-attr]  # matches the empty string
        arguments.append(_Argument(keyword[1] if keyword is not None else "", value))
        if position == len(line):
            return _Scan("unfinished", position)
        if line[position] not in ",)":
            return _Scan("malformed", len(line))
        position += line[position] == ","


def _scan_value(line: str, position: int) -> tuple[int | str | bool | None, int]:
    """Returns the literal at a position and where it ends; None for no literal, end -1 for an unclosed string."""
    opening = line[position : position + 1]
    if opening in _STRINGS:
        string = _STRINGS[opening].match(line, position)
        return ("", -1) if string is None else (_decoded(string[1]), string.end())
    bare = _BARE.match(line, position)
    word = bare[0].strip() if bare is not None else ""
    end = bare.end() if bare is not None else position
    if _INT.fullmatch(word):
        return int(word), end
    return {"True": True, "False": False}.get(word), end


def _decoded(text: str) -> str:
    return _ESCAPE.sub(r"\1", text)


def _scan_unescaped_quotes(line: str, position: int) -> _Scan | None:
    """Returns the arguments of a `normalize` whose source holds bare quotes, None where that reading fails.

    The last ``", target_str="`` and the last ``")`` of the line are taken as delimiters.
    """
    opening = _SOURCE_OPENS.match(line, position)
    closing = line.rfind('")')
    if opening is None or closing < opening.end():
        return None
    middle, width = line.rfind('", target_str="', opening.end(), closing + 2), len('", target_str="')
    source = line[opening.end() : closing if middle < 0 else middle]
    target = "" if middle < 0 else line[middle + width : closing]
    arguments = (_Argument("source_str", _decoded(source)), _Argument("target_str", _decoded(target)))
    return _Scan("closed", closing + 2, arguments)


def _operation(name: str, arguments: tuple[_Argument, ...]) -> Operation | None:
    """Returns the operation of a whole call, None where a needed argument is missing or of the wrong kind."""
    if name in KEEP_NAMES:
        return KeepChunk()
    if name == "keep_doc":
        return KeepDoc()
    if name == "drop_doc":
        return DropDoc()
    if name == "normalize":
        values = _bind(arguments, (("source_str",), ("target_str",)))
        source, target = values.get(0), values.get(1, "")
        return Normalize(source, target) if isinstance(source, str) and isinstance(target, str) else None
    if any(argument.keyword == "all" and argument.value is True for argument in arguments):
        return RemoveAll()
    values = _bind(arguments, (("start", "line_start"), ("end", "line_end")))
    first, last = values.get(0), values.get(1)
    if type(first) is not int or type(last) is not int:  # a bool is an int, but no line number
        return None
    return RemoveLines(first, last)


def _bind(
    arguments: tuple[_Argument, ...], parameters: tuple[tuple[str, ...], ...]
) -> dict[int, int | str | bool | None]:
    """Returns values by parameter index: keywords first, then positional values for the parameters left, in order."""
    values: dict[int, int | str | bool | None] = {}
    for index, names in enumerate(parameters):
        for argument in arguments:
            if argument.keyword in names:
                values[index] = argument.value
    free = [index for index in range(len(parameters)) if index not in values]
    positional = [argument.value for argument in arguments if not argument.keyword]
    values.update(zip(free, positional, strict=False))
    return values
