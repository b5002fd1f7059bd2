"""Finds programs that say the same call over and over, while they are written.

Source: UltraX (arXiv 2607.08646) gives up an output with the same call more than three times; prox.md idea 11. Here
what was said before the repetition is kept: the calls up to the second occurrence of the call that repeats.
"""

from corpusmill.prox.token_bytes import TokenBytes

MAX_REPEATS = 3
"""Times that a program may say the same call; the next time stops it."""

_QUOTE, _BACKSLASH, _CLOSING, _NEWLINE = b'"\\)\n'


class LoopWatch:
    """Reads the tokens of one output.

    Args:
        pieces: Bytes of each token.
    """

    def __init__(self, pieces: TokenBytes) -> None:
        self.pieces = pieces
        self.n_ids = 0
        self.looped = False
        self.n_good = 0
        """Ids to keep of an output that looped."""
        self._call = bytearray()
        self._in_string = self._escaped = False
        self._end = 0  # ids up to and with the last whole call
        self._counts: dict[bytes, int] = {}
        self._second: dict[bytes, int] = {}  # call -> ids in front of its second occurrence

    def advance(self, token: int) -> bool:
        """Returns whether the output loops, now that a token was added."""
        self.n_ids += 1
        for byte in (self.pieces[token] if token < len(self.pieces) else None) or b"":
            self._read(byte)
        return self.looped

    def _read(self, byte: int) -> None:
        if byte == _NEWLINE:
            self._close()
            return
        self._call.append(byte)
        if self._escaped:
            self._escaped = False
        elif byte == _BACKSLASH:
            self._escaped = self._in_string
        elif byte == _QUOTE:
            self._in_string = not self._in_string
        elif byte == _CLOSING and not self._in_string:
            self._close()

    def _close(self) -> None:
        call = bytes(self._call).strip(b" \t\r;")
        self._call.clear()
        self._in_string = self._escaped = False
        if not call or self.looped:
            return
        count = self._counts[call] = self._counts.get(call, 0) + 1
        if count == 2:
            self._second[call] = self._end
        self._end = self.n_ids
        if count > MAX_REPEATS:
            self.looped, self.n_good = True, self._second[call]
