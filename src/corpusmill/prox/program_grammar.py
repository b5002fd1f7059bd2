r"""The strict grammar over one chunk, byte by byte: which bytes and so which tokens may come next.

    program := call { "\n" call }                       one blank may stand in front of the first call
    call    := "remove_lines(start=" N ", end=" N ")"   also line_start and line_end; first line <= N <= last line,
                                                        start <= end; leading zeros, at most 6 digits
             | 'normalize(source_str="' S '"' [', target_str="' T '"'] ")"
             | "keep_chunk()" | "skip_chunk()" | "untouch_doc()"

S is a part of one line of the chunk with at least two non-blank characters, quotes escaped as `program_parser` reads
them; it is followed by the set of places where it may stand, so checking a byte costs at most the places left. T is any
text up to `MAX_TARGET` bytes. The end token is allowed behind a whole call only. Every state can be completed.

Tokens are read as bytes, so the grammar holds for any tokenizer whose bytes are known, and for every way to cut the
same text into tokens: where an unconstrained output is in the grammar, constraining changes nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from corpusmill.batches import replace_surrogates
from corpusmill.prox.chunking import Chunk
from corpusmill.prox.program_execution import MIN_SOURCE
from corpusmill.prox.token_bytes import TokenBytes

MAX_TARGET = 128
"""Bytes of a replacement; the public refiners replace by nothing nearly always."""
MAX_DIGITS = 6
_LARGEST = 10**MAX_DIGITS - 1

_QUOTE, _APOSTROPHE, _BACKSLASH, _NEWLINE, _COMMA, _CLOSING, _BLANK = b"\"'\\\n,) "
_ESCAPABLE = frozenset((_QUOTE, _APOSTROPHE, _BACKSLASH))
_REMOVES = {b"remove_lines(start=": b" end=", b"remove_lines(line_start=": b" line_end="}
_NORMALIZE = b'normalize(source_str="'
_KEEPS = (b"keep_chunk()", b"skip_chunk()", b"untouch_doc()")

# What a state is in; each phase has a method of `ChunkGrammar` that reads one byte.
_START, _HEAD, _FIRST, _LAST, _FORCED, _SOURCE, _SOURCE_END, _TARGET, _WHOLE = range(9)


@dataclass(frozen=True, slots=True)
class State:
    """How far a program is written.

    Attributes:
        phase: What is being written.
        text: Bytes of the call's head or the number so far, or the bytes that must follow (forced).
        then: Phase behind forced bytes.
        low: Smallest number allowed.
        places: Where in the chunk's bytes the source may go on; None: anywhere that a source may begin.
        count: Non-blank characters of the source, or bytes of the target.
        open_bytes: Bytes that the character being written still needs.
        escaped: True behind a backslash.
        label: Bytes between the two numbers of ``remove_lines``.
    """

    phase: int
    text: bytes = b""
    then: int = _WHOLE
    low: int = 0
    places: tuple[int, ...] | None = None
    count: int = 0
    open_bytes: int = 0
    escaped: bool = False
    label: bytes = b""

    @property
    def whole(self) -> bool:
        """True where the program may end here."""
        return self.phase == _WHOLE


class ChunkGrammar:
    """The programs that are allowed for one chunk.

    Args:
        chunk: The lines that the model is shown.
    """

    def __init__(self, chunk: Chunk) -> None:
        self.low, self.high = chunk.first_line, min(chunk.last_line, _LARGEST)
        self.text = replace_surrogates("\n".join(chunk.lines))[0].encode() + b"\n"
        self._begin()
        heads = list(_KEEPS)
        if self.low <= self.high:
            heads += _REMOVES
        if self.begins:
            heads.append(_NORMALIZE)
        self.heads = tuple(heads)
        self._readers: dict[int, Callable[[State, int], State | None]] = {
            _START: self._start,
            _HEAD: self._head,
            _FIRST: self._first,
            _LAST: self._last,
            _FORCED: self._forced,
            _SOURCE: self._source,
            _SOURCE_END: self._source_end,
            _TARGET: self._target,
            _WHOLE: self._whole,
        }

    def _begin(self) -> None:
        """Finds where characters that are not blank begin, and by first byte where a source may begin."""
        self.solid = bytearray(len(self.text))
        self.begins: dict[int, list[int]] = {}
        line_start = 0
        for line in self.text.decode().split("\n")[:-1]:
            starts, place = [], line_start
            for character in line:
                starts.append(place)
                self.solid[place] = not character.isspace()
                place += len(character.encode())
            seen = 0
            for place in reversed(starts):
                seen += self.solid[place]
                if seen >= MIN_SOURCE:
                    self.begins.setdefault(self.text[place], []).append(place)
            line_start += len(line.encode()) + 1

    def start(self) -> State:
        """Returns the state in front of a program."""
        return State(_START)

    def feed(self, state: State, piece: bytes) -> State | None:
        """Returns the state behind further bytes, None where they are not allowed."""
        now: State | None = state
        for byte in piece:
            if now is None:
                return None
            now = self._readers[now.phase](now, byte)
        return now

    def _start(self, state: State, byte: int) -> State | None:
        return State(_HEAD) if byte == _BLANK else self._head(state, byte)

    def _head(self, state: State, byte: int) -> State | None:
        text = state.text + bytes([byte])
        if not any(head.startswith(text) for head in self.heads):
            return None
        if text in _KEEPS:
            return State(_WHOLE)
        if text in _REMOVES:
            return State(_FIRST, low=self.low, label=_REMOVES[text])
        return State(_SOURCE) if text == _NORMALIZE else State(_HEAD, text)

    def _first(self, state: State, byte: int) -> State | None:
        if byte == _COMMA and self._is_number(state):
            return State(_FORCED, state.label, then=_LAST, low=int(state.text))
        return self._digit(state, byte)

    def _last(self, state: State, byte: int) -> State | None:
        if byte == _CLOSING and self._is_number(state):
            return State(_WHOLE)
        return self._digit(state, byte)

    def _is_number(self, state: State) -> bool:
        return bool(state.text) and state.low <= int(state.text) <= self.high

    def _digit(self, state: State, byte: int) -> State | None:
        if not 0x30 <= byte <= 0x39 or len(state.text) == MAX_DIGITS:
            return None
        text = state.text + bytes([byte])
        value, width = int(text), 1
        for _ in range(MAX_DIGITS - len(text) + 1):  # with no, one, two ... further digits
            if value * width <= self.high and (value + 1) * width - 1 >= state.low:
                return replace(state, text=text)
            width *= 10
        return None

    def _forced(self, state: State, byte: int) -> State | None:
        if byte != state.text[0]:
            return None
        if len(state.text) > 1:
            return replace(state, text=state.text[1:])
        return State(state.then, low=state.low)

    def _source(self, state: State, byte: int) -> State | None:
        if byte == _NEWLINE:
            return None
        if state.escaped:
            if byte in _ESCAPABLE:
                return self._matched(state, byte)
            # a backslash that escapes nothing stands for itself
            behind = self._matched(state, _BACKSLASH)
            return None if behind is None else self._matched(behind, byte)
        if byte == _QUOTE:
            whole = state.count >= MIN_SOURCE and not state.open_bytes
            return State(_SOURCE_END) if whole else None
        if byte == _BACKSLASH:
            if state.places is None:
                can_follow = any(escapable in self.begins for escapable in _ESCAPABLE)
            else:
                can_follow = any(self.text[place] in _ESCAPABLE for place in state.places)
            return replace(state, escaped=True) if can_follow else None
        return self._matched(state, byte)

    def _matched(self, state: State, byte: int) -> State | None:
        """Returns the state behind a byte of the text itself."""
        if state.places is None:
            places: Sequence[int] = self.begins.get(byte, ())
        else:
            places = [place for place in state.places if self.text[place] == byte]
        if not places:
            return None
        open_bytes = state.open_bytes - 1 if state.open_bytes else _n_more(byte)
        return State(
            _SOURCE,
            places=tuple(place + 1 for place in places),
            count=state.count + self.solid[places[0]],
            open_bytes=open_bytes,
        )

    def _source_end(self, _state: State, byte: int) -> State | None:
        if byte == _CLOSING:
            return State(_WHOLE)
        return State(_FORCED, b' target_str="', then=_TARGET) if byte == _COMMA else None

    def _target(self, state: State, byte: int) -> State | None:
        if byte == _NEWLINE:
            return None
        if not state.escaped and byte == _QUOTE:
            return State(_FORCED, b")")
        left = MAX_TARGET - state.count
        if left < 1 or (left < 2 and not state.escaped and byte == _BACKSLASH):
            return None
        return State(_TARGET, count=state.count + 1, escaped=not state.escaped and byte == _BACKSLASH)

    def _whole(self, _state: State, byte: int) -> State | None:
        return State(_HEAD) if byte == _NEWLINE else None


def _n_more(byte: int) -> int:
    """Returns how many bytes follow the first one of a UTF-8 character."""
    return (byte >= 0xC0) + (byte >= 0xE0) + (byte >= 0xF0)


@dataclass
class _Node:
    """A node of the vocabulary's tree of bytes: the ids that end here and the nodes one byte on."""

    ids: list[int] = field(default_factory=list)
    next: dict[int, "_Node"] = field(default_factory=dict)


class Vocabulary:
    """The tokens of a tokenizer as a tree of bytes; made once and shared by all chunks.

    Args:
        pieces: Bytes of each token.
        eos: Id that ends an output; None: no output can end by itself.
    """

    def __init__(self, pieces: TokenBytes, eos: int | None) -> None:
        self.pieces, self.eos = pieces, eos
        self._tree: _Node | None = None

    def tree(self) -> _Node:
        """Returns the root, where no token ends."""
        if self._tree is None:
            self._tree = _Node()
            for token, piece in enumerate(self.pieces):
                node = self._tree
                for byte in piece or b"":
                    node = node.next.setdefault(byte, _Node())
                if piece:
                    node.ids.append(token)
        return self._tree


class Guide:
    """Leads the decoding of one output through the grammar.

    Args:
        grammar: Allowed programs.
        vocabulary: Tokens.
    """

    def __init__(self, grammar: ChunkGrammar, vocabulary: Vocabulary) -> None:
        self.grammar, self.vocabulary = grammar, vocabulary
        self.state = grammar.start()
        self.n_ids = self.n_whole = 0

    def allows(self, token: int) -> bool:
        """Returns whether a token may come next."""
        if token == self.vocabulary.eos:
            return self.state.whole
        return self._behind(token) is not None

    def _behind(self, token: int) -> State | None:
        pieces = self.vocabulary.pieces
        piece = pieces[token] if 0 <= token < len(pieces) else None
        return self.grammar.feed(self.state, piece) if piece else None

    def advance(self, token: int) -> None:
        """Takes a token that is allowed."""
        behind = self._behind(token)
        assert behind is not None, "only allowed tokens are taken"
        self.state = behind
        self.n_ids += 1
        if behind.whole:
            self.n_whole = self.n_ids

    @property
    def n_good(self) -> int:
        """Ids up to the last whole call: what stays of an output that was cut."""
        return self.n_whole

    def allowed(self) -> list[int]:
        """Returns all ids that may come next, sorted; none where the vocabulary lacks what the grammar wants.

        The tree of the vocabulary is followed only where the grammar allows the bytes, so literals and numbers cost a
        few nodes and a source costs what of its lines the vocabulary can spell.
        """
        found = [self.vocabulary.eos] if self.state.whole and self.vocabulary.eos is not None else []
        open_nodes: list[tuple[_Node, State]] = [(self.vocabulary.tree(), self.state)]
        while open_nodes:
            node, state = open_nodes.pop()
            found += node.ids
            for byte, child in node.next.items():
                behind = self.grammar.feed(state, bytes((byte,)))
                if behind is not None:
                    open_nodes.append((child, behind))
        return sorted(found)
