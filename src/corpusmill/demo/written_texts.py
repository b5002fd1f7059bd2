"""The texts that were written for the demo pages, read from ``sources/*.txt``.

A source file holds entries that begin with ``== key | field | ...``, then ``# title``, then one paragraph a line.
``news_events.txt`` holds events with two wordings per paragraph and blanks for town, names and numbers; each event
becomes a different article in each town.
"""

from dataclasses import dataclass
from importlib import resources

from corpusmill.demo.dice import Dice

TOWNS: tuple[tuple[str, str, str], ...] = (
    ("Aldermoor", "Mill Lane", "aldermoor-herald.example"),
    ("Port Cassia", "Harbour Road", "cassia-courier.example"),
    ("Veldhoek", "Station Street", "veldhoek-post.example"),
    ("Saint Orlan", "Chapel Hill", "orlan-times.example"),
    ("Brackenford", "Tanner's Row", "brackenford-news.example"),
)
"""Invented towns with a street and the host of their paper."""
PEOPLE = (
    "Ada Pelham", "Jonas Rietveld", "Mirela Costin", "Tobias Anker", "Hanne Solberg", "Rosa Quintana", "Idris Bello",
    "Clara Whitcombe", "Pavel Hruska", "Noor van Dijk", "Elin Marten", "Samuel Okoro", "Greta Lind", "Yusuf Demir",
)  # fmt: skip


@dataclass(frozen=True)
class Text:
    """One written text.

    Attributes:
        key: ``kind/slug``; unique.
        title: Headline.
        blocks: (``p`` or ``li``, text) in order.
        fields: Further fields of the entry's first line.
        language: ISO 639-1 code.
    """

    key: str
    title: str
    blocks: tuple[tuple[str, str], ...]
    fields: tuple[str, ...] = ()
    language: str = "en"

    @property
    def slug(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]


def read_entries(name: str) -> list[tuple[tuple[str, ...], str, list[str]]]:
    """Returns (fields, title, lines) of each entry of a source file."""
    source = resources.files("corpusmill.demo") / "sources" / f"{name}.txt"
    entries = []
    for chunk in source.read_text(encoding="utf-8").split("\n== "):
        head, title, *lines = [line for line in chunk.removeprefix("== ").split("\n") if line]
        fields = tuple(field.strip() for field in head.split("|"))
        entries.append((fields, title.removeprefix("# "), lines))
    return entries


def articles() -> list[Text]:
    """Returns the long articles: blog, how-to and science."""
    files = ("articles_home", "articles_nature", "articles_town")
    return [Text(f[0], title, _blocks(lines)) for name in files for f, title, lines in read_entries(name)]


def recipes() -> list[Text]:
    """Returns the recipes; fields are portions and minutes."""
    return [Text(f"recipe/{f[0]}", title, _blocks(lines), f[1:]) for f, title, lines in read_entries("recipes")]


def products() -> list[Text]:
    """Returns the product pages; the field is the price."""
    return [Text(f"shop/{f[0]}", title, _blocks(lines), f[1:]) for f, title, lines in read_entries("shop")]


def threads() -> list[Text]:
    """Returns the forum threads; blocks are ``user: post``, the field is the board."""
    return [Text(f"forum/{f[0]}", title, _blocks(lines), f[1:]) for f, title, lines in read_entries("forum")]


def foreign() -> list[Text]:
    """Returns the German, French and Spanish articles."""
    return [Text(f[0], title, _blocks(lines), (), f[0][:2]) for f, title, lines in read_entries("foreign")]


def promotions() -> list[Text]:
    """Returns pools of advertising and legal sentences with blanks for brand and product."""
    return [Text(f"promotion/{f[0]}", title, _blocks(lines)) for f, title, lines in read_entries("promotions")]


def news() -> list[Text]:
    """Returns one article for each event and town; the fields are town and host."""
    return [_event(entry, town) for entry in read_entries("news_events") for town in TOWNS]


def _event(entry: tuple[tuple[str, ...], str, list[str]], place: tuple[str, str, str]) -> Text:
    (slug, *_), title, lines = entry
    town, street, host = place
    dice = Dice(f"{slug} {town}")
    blanks = {
        "town": town,
        "street": street,
        "name": dice.choice(PEOPLE),
        "year": str(1893 + dice.below(90)),
        "weeks": dice.choice(("four", "six", "seven", "nine", "eleven", "thirteen", "fourteen", "eighteen")),
        "n": str(140 + dice.below(700)),
    }
    pairs = list(zip(lines[::2], lines[1::2], strict=True))
    chosen = [pair[dice.below(2)].removeprefix("| ") for pair in pairs]
    blocks = tuple(("p", text.format(**blanks)) for text in chosen)
    return Text(f"news/{slug}-{town.lower().replace(' ', '-')}", title.format(**blanks), blocks, (town, host))


def _blocks(lines: list[str]) -> tuple[tuple[str, str], ...]:
    return tuple(("li", line[2:]) if line.startswith("- ") else ("p", line) for line in lines)
