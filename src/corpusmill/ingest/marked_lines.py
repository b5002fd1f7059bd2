"""The lines of a page's text with what the markup says of each: link, heading, paragraph, list item, code.

Resiliparse writes a page's text with reduced markup (``preserve_formatting="minimal_html"``) as fast as without. It
escapes ``<`` in text and ``"`` in link targets, so that a tag is what looks like one.
"""

import re
from collections.abc import Iterable
from html import unescape
from typing import Literal, NamedTuple

_TAG = re.compile(r'(<a href="[^"]*">|</?(?:a|p|h[1-6]|ul|ol|li|pre)>|<br>)')
_PARAGRAPH = re.compile("<p>([^<]*)</p>")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_BLANKS = " \t\r"
CJK_WIDTH = 2.5
"""Letters of an alphabet that one Chinese, Japanese or Korean character counts for."""

Kind = Literal["text", "paragraph", "heading", "item", "code"]
_KINDS: dict[str, Kind] = {"p": "paragraph", "h": "heading", "l": "item"}  # by the first letter of an opening tag


class MarkedLine(NamedTuple):
    """One line of text.

    Attributes:
        text: What a reader sees, without markup; in code with its indentation.
        prefix: Indentation and bullet of a list item.
        width: Length of ``text`` in letters; see `text_width`.
        link_share: Share of the text's characters inside links, 0 to 1.
        kind: Innermost element known of it; ``text`` where the markup names none.
        gap: Whether a blank line stands before it.
    """

    text: str
    prefix: str
    width: float
    link_share: float
    kind: Kind
    gap: bool


def text_width(text: str) -> float:
    """Returns the length in letters of an alphabet, so that thresholds hold for scripts without one too."""
    return len(text) if text.isascii() else len(text) + (CJK_WIDTH - 1) * len(_CJK.findall(text))


def render(lines: Iterable[MarkedLine]) -> str:
    """Returns lines as plain text, one blank line where any stood before the line."""
    parts: list[str] = []
    for line in lines:
        if parts:
            parts.append("\n\n" if line.gap else "\n")
        parts.append(line.prefix + line.text)
    return "".join(parts)


def read_marked_lines(markup: str) -> list[MarkedLine]:
    """Returns the lines that hold text, from text in resiliparse's reduced markup."""
    reader = _Reader()
    for raw in markup.split("\n"):
        if raw:
            reader.add(raw)
        else:
            reader.gap = True
    return reader.lines


class _Reader:
    """Where in the markup the next line stands: inside a link, code, lists."""

    def __init__(self) -> None:
        self.lines: list[MarkedLine] = []
        self.in_link = False
        self.in_code = False
        self.numbers: list[int] = []  # of each open list the items so far; -1: bullets
        self.bullet = ""
        self.gap = False

    def add(self, raw: str) -> None:
        """Takes one line."""
        in_code = self.in_code
        kind: Kind = "text"
        if "<" not in raw:
            text, n_linked = raw, len(raw.strip()) if self.in_link else 0
        elif (whole := _PARAGRAPH.fullmatch(raw)) and not self.in_link:
            text, n_linked, kind = whole[1], 0, "paragraph"
        else:
            text, n_linked, kind = self._tagged(raw)
            in_code = in_code or self.in_code
        if "&" in text:
            text = unescape(text)
        text = text.rstrip(_BLANKS) if in_code else text.strip(_BLANKS)
        if not text or text.isspace():
            self.gap = self.gap or raw.isspace()
            return
        prefix = "" if in_code or not self.numbers else "  " * len(self.numbers) + (self.bullet or "  ")
        self.bullet = ""
        share = min(1.0, n_linked / len(text)) if n_linked else 0.0
        if in_code:
            kind = "code"
        elif kind == "text" and self.numbers:
            kind = "item"
        self.lines.append(MarkedLine(text, prefix, text_width(text), share, kind, self.gap))
        self.gap = False

    def _tagged(self, raw: str) -> tuple[str, int, Kind]:
        """Returns text, characters in links and kind of a line with tags, and takes the tags in."""
        parts = _TAG.split(raw)  # text and tags by turns
        n_linked = len(parts[0].strip()) if self.in_link else 0
        kind: Kind = "text"
        for k in range(1, len(parts), 2):
            tag = parts[k]
            parts[k] = ""
            if tag.startswith("<a "):
                self.in_link = True
            elif tag == "</a>":
                self.in_link = False
            elif tag == "<br>":  # outside code a line break follows it
                parts[k] = "\n" if self.in_code else ""
            else:
                kind = self._element(tag) or kind
            if self.in_link:
                n_linked += len(parts[k + 1].strip())
        return "".join(parts), n_linked, kind

    def _element(self, tag: str) -> Kind | None:
        """Takes the tag of an element other than a link; returns the kind that it gives its line."""
        if tag in ("<pre>", "</pre>"):
            self.in_code = tag == "<pre>"
        elif tag in ("<ul>", "<ol>"):
            self.numbers.append(-1 if tag == "<ul>" else 0)
        elif tag in ("</ul>", "</ol>"):
            del self.numbers[-1:]
        elif tag == "<li>":
            self.bullet = self._next_bullet()
        return _KINDS.get(tag[1])

    def _next_bullet(self) -> str:
        """Returns the bullet or number of the next item of the innermost list, ``""`` outside any list."""
        if not self.numbers:
            return ""
        if self.numbers[-1] < 0:
            return "\u2022 "
        self.numbers[-1] += 1
        return f"{self.numbers[-1]}. "
