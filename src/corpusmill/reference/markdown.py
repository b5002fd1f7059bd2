"""The Markdown that the reference pages are made of."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

NOTE = "<!-- Made by `make reference`; do not edit. -->"


def page(title: str, introduction: str, blocks: Iterable[str]) -> str:
    """Returns a page; its blocks stand apart by a blank line."""
    return "\n\n".join((NOTE, f"# {title}", introduction, *blocks)) + "\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table."""
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def named(what: str, sentences: Mapping[str, str]) -> str:
    """Returns a table of names with one sentence each."""
    return table((what, "meaning"), [(f"`{name}`", sentence) for name, sentence in sentences.items()])


def codes(names: Iterable[str]) -> str:
    """Returns names set as code, with commas."""
    return ", ".join(f"`{name}`" for name in names)


def prose(text: str | None) -> str:
    """Returns a docstring with one line per paragraph."""
    return "\n\n".join(_paragraphs(text))


def _paragraphs(text: str | None) -> Iterator[str]:
    for block in (text or "").strip().split("\n\n"):
        yield " ".join(block.split())
