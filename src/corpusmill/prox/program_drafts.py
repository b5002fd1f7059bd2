"""Guesses how a program goes on, so that one forward pass can check many tokens at once.

A guess is never taken over unchecked: decoding keeps a drafted token only where the model would have written it, so
drafts change the time and not the text. Most of a program follows from its grammar: of the 13 tokens of a
``remove_lines`` call about 9 are forced. What is forced is not written down here token by token, but read off the
project's spelling of the calls through the model's own tokenizer, and then learned from what the model writes: from
three, two or one token before, the token that followed, and how often. Runs of digits count as one sign, since line
numbers differ where the text around them does not. A number is guessed from the number before it, by the difference
seen most at this place: the end of a range equals its start, the next range begins two lines on. Inside a string the
guess is what follows in the prompt, since sources of ``normalize`` are copied from there. A draft is as long as it is
probable to hold, so a model that writes no programs is drafted next to nothing.

Source: prox.md section 7, idea 8; prompt lookup as in speculative decoding by n-grams.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from corpusmill.prox.token_bytes import TokenBytes

MAX_DRAFT = 24
"""Drafted tokens of a row and step at most: nearly two ``remove_lines`` calls."""
MAX_CONTEXTS = 100_000
"""Learned contexts; beyond, the table is begun anew, so that memory stays bounded over a crawl."""
MIN_CHANCE = 0.3
"""A draft ends where it is less probable than this that its next token is reached and right."""

_NUMBER, _START = -2, -1
_PACE = 0.12  # weight of the last time in the share of times that an expectation held
_NEW, _FORGOTTEN = 0.28, 0.25  # share of a new expectation, too low to be drafted, and one that gives way to another
_TRIAL = 16  # proposals between two trials while drafts do not hold
_N_TAUGHT = 12  # times that the grammar is told, for shares near 1
_GRAMMAR = (
    "remove_lines(start=10, end=12)\nremove_lines(start=14, end=14)\nremove_lines(start=16, end=16)",
    'normalize(source_str="a", target_str="")\nnormalize(source_str="b", target_str="")\nremove_lines(start=3, end=3)',
    "keep_chunk()",
    "skip_chunk()",
    "untouch_doc()",
    "keep_doc()",
    "drop_doc()",
)
_Context = tuple[int, ...]


@dataclass(slots=True)
class _Expected:
    """What follows a context most, and the share of times that it did."""

    value: int
    share: float = _NEW

    def see(self, value: int) -> None:
        if value == self.value:
            self.share += (1 - self.share) * _PACE
            return
        self.share -= self.share * _PACE
        if self.share < _FORGOTTEN:
            self.value, self.share = value, _NEW


class DraftTable:
    """What is known about how programs go on; shared by all rows and kept between calls.

    Args:
        pieces: Bytes of each token; None where they are not known, then numbers are not guessed.
        encode: Ids of a text.
        eos: Id that ends an output; never drafted.
    """

    def __init__(self, pieces: TokenBytes | None, encode: Callable[[str], list[int]], eos: int | None) -> None:
        self.encode, self.eos = encode, eos
        self.trust = 1.0
        """Share of drafts whose first token held, the latest counting most."""
        self.digits: dict[int, str] = {}
        self.quotes: dict[int, int] = {}
        for token, piece in enumerate(pieces or ()):
            if piece is not None and piece.strip().isdigit():
                self.digits[token] = piece.strip().decode()
            elif piece is not None and b'"' in piece:
                self.quotes[token] = piece.count(b'"')
        self._numbers: dict[tuple[str, str], tuple[int, ...]] = {}
        self._seed()

    def _seed(self) -> None:
        self.following: dict[_Context, _Expected] = {}  # the token behind a context
        self.steps: dict[_Context, _Expected] = {}  # the difference of a number behind a context to the one before
        self.ends: dict[_Context, _Expected] = {}  # (digits, not below the number before) -> 1 where it ended there
        for text in _GRAMMAR:
            for _ in range(_N_TAUGHT):
                row = RowDraft(self, ())
                for token in self.encode(text):
                    row.accept(token)

    def learn(self, table: dict[_Context, _Expected], context: _Context, value: int) -> None:
        """Takes note of what followed a context."""
        entry = table.get(context)
        if entry is not None:
            entry.see(value)
        elif len(table) < MAX_CONTEXTS:
            table[context] = _Expected(value)
        else:
            self._seed()

    def expected(self, last: _Context) -> _Expected | None:
        """Returns what is expected after the last three signs, by the longest context that is known."""
        get = self.following.get
        return get(last) or get(last[1:]) or get(last[2:])

    def number_ids(self, written: str, number: str) -> tuple[int, ...]:
        """Returns the ids that complete a number whose first digits are written, none where they do not fit on."""
        key = (written, number)
        if key not in self._numbers:
            before, whole = self.encode("=" + written), self.encode("=" + number)
            self._numbers[key] = tuple(whole[len(before) :]) if whole[: len(before)] == before else ()
        return self._numbers[key]


class RowDraft:
    """Guesses for one output.

    Args:
        table: What is known.
        prompt: Ids of the prompt, for sources of ``normalize``.
    """

    def __init__(self, table: DraftTable, prompt: Sequence[int]) -> None:
        self.table, self.prompt = table, prompt
        self.last: _Context = (_START, _START, _START)
        self.number = ""  # digits of the number being written
        self.before = 0  # the number before it
        self.token = _START
        self.previous = _START  # the token before
        self.in_string = False
        self._first: int | None = None  # the first token of the last draft
        self._n_asked = 0
        self._places: dict[tuple[int, int], int] | None = None

    def accept(self, token: int) -> None:
        """Takes note of a token that was written, and learns from it."""
        table = self.table
        if self._first is not None:
            table.trust += ((token == self._first) - table.trust) * 0.02
            self._first = None
        digits = table.digits.get(token)
        if self.number:
            table.learn(table.ends, self._length(self.number, self.before), int(digits is None))
        if digits is not None and self.number:
            self.number += digits
        else:
            if self.number:
                self._close_number()
            sign = token if digits is None else _NUMBER
            for start in range(3):
                table.learn(table.following, self.last[start:], sign)
            self.last = (*self.last[1:], sign)
            self.number = digits or ""
        if table.quotes.get(token, 0) % 2:
            self.in_string = not self.in_string
        self.previous, self.token = self.token, token

    def _close_number(self) -> None:
        value = int(self.number[:7])
        if not self.in_string:
            self.table.learn(self.table.steps, self.last[:2], value - self.before)
            self.before = value
        self.number = ""

    def propose(self, limit: int) -> list[int]:
        """Returns at most ``limit`` ids that may follow; seldom any while drafts do not hold."""
        self._n_asked += 1
        if self.table.trust < MIN_CHANCE and self._n_asked % _TRIAL:
            return []
        draft = self._continued(min(limit, MAX_DRAFT)) or self._copied()[:limit]
        self._first = draft[0] if draft else None
        return draft

    def _continued(self, limit: int) -> list[int]:
        draft: list[int] = []
        last, number, before, chance = self.last, self.number, self.before, 1.0
        while len(draft) < limit:
            if number:
                more, sure = self._rest_of_number(last, number, before)
                draft += more
                chance *= sure
                if chance < MIN_CHANCE:
                    break
                number, before = "", self._value(number, more)
            expected = self.table.expected(last)
            if expected is None or expected.value == self.table.eos:
                break
            chance *= expected.share
            if chance < MIN_CHANCE:
                break
            last = (*last[1:], expected.value)
            if expected.value != _NUMBER:
                draft.append(expected.value)
                continue
            guess, sure = self._guess(last[:2], before)
            more = list(self.table.number_ids("", guess))
            before, chance = int(guess), chance * sure
            draft += more
            if not more or chance < MIN_CHANCE:
                break
        return draft[:limit]

    def _guess(self, context: _Context, before: int) -> tuple[str, float]:
        """Returns the number expected behind a context, and the share of times that such a guess held."""
        step = self.table.steps.get(context)
        return (str(before), _FORGOTTEN) if step is None else (str(max(before + step.value, 0)), step.share)

    def _value(self, number: str, more: list[int]) -> int:
        return int((number + "".join(self.table.digits.get(token, "") for token in more))[:7])

    def _rest_of_number(self, last: _Context, number: str, before: int) -> tuple[list[int], float]:
        """Returns ids that complete a number that is being written, and how probable it is that it ends there."""
        guess, sure = self._guess(last[:2], before)
        if guess.startswith(number) and len(guess) > len(number):
            return list(self.table.number_ids(number, guess)), sure
        end = self.table.ends.get(self._length(number, before))
        if end is None:
            return [], _FORGOTTEN
        return [], end.share if end.value else 1 - end.share

    def _length(self, number: str, before: int) -> _Context:
        return min(len(number), 7), int(int(number[:7]) >= before)

    def _copied(self) -> list[int]:
        """Returns what follows the last two tokens in the prompt, inside a string."""
        if not self.in_string or len(self.prompt) < 3:
            return []
        if self._places is None:
            self._places = {pair: i + 2 for i, pair in enumerate(zip(self.prompt, self.prompt[1:], strict=False))}
        place = self._places.get((self.previous, self.token))
        return [] if place is None else list(self.prompt[place : place + 8])
