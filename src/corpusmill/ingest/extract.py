"""Turns one HTML page into text, and says by which extractor, at which version, with which options.

The library behind it is chosen by `IngestConfig.extractor`. Trafilatura is always called with ``deduplicate=False``:
with True it keeps a process-wide memory of segments and gives the same page text three times and then nothing.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from corpusmill.config import fingerprint
from corpusmill.ingest.charset import CHARSET_RULES, Source, UndecodableError, decode_html

if TYPE_CHECKING:
    from corpusmill.ingest.config import IngestConfig

MARKUP = {"preserve_formatting": "minimal_html", "links": True}
"""Options under which resiliparse writes the markup that `corpusmill.ingest.line_model` reads."""
NOT_ROWS = frozenset({"max_error_fraction", "resiliparse", "trafilatura"})


@dataclass(frozen=True)
class Extracted:
    """What became of one page.

    Attributes:
        text: The text; ``""`` where the page has none, or where ``reason`` is set.
        charset: Codec that decoded the page, ``""`` where none did.
        charset_source: Where the charset came from, None where the page could not be decoded.
        n_replaced: Bytes that were replaced when decoding.
        reason: Machine reason where the page could not be processed, ``""`` where it could.
        message: The reason in words.
    """

    text: str = ""
    charset: str = ""
    charset_source: Source | None = None
    n_replaced: int = 0
    reason: str = ""
    message: str = ""


Extractor = Callable[[str], str]


def extraction_fingerprint(config: "IngestConfig") -> str:
    """Returns 16 hex digits over everything that decides what stands in ``raw.pages``: part of its partition.

    Extractor, its installed version and its options; the version of the charset rules and of the charset detector;
    and every setting that lets pages in or keeps them out. `max_error_fraction` is left out: it changes no row.
    """
    settings = config.model_dump(mode="json", exclude=set(NOT_ROWS))
    if config.kind == "wet":
        return fingerprint({name: settings[name] for name in ("kind", "min_chars", "max_files", "max_bytes_record")})
    return fingerprint(
        settings
        | {
            "options": _options(config),
            "version": version(config.extractor),
            "charset_rules": CHARSET_RULES,
            "charset_detector": version("resiliparse"),
        }
    )


def _options(config: "IngestConfig") -> dict[str, Any]:
    """Returns the extractor's options; with the line model also its rules and weights, without it no word of it."""
    options: dict[str, Any] = getattr(config, config.extractor).model_dump(mode="json")
    if options.pop("line_model", False):
        from corpusmill.ingest.line_model import model_digest

        options["line_model"] = model_digest()
    return options


def load_extractor(name: str, options: Mapping[str, Any]) -> Extractor:
    """Returns a function from HTML to text.

    Args:
        name: ``resiliparse`` or ``trafilatura``.
        options: Keyword arguments of the library's function, from the settings.
    """
    if name == "trafilatura":
        from trafilatura import extract

        return lambda html: extract(html, deduplicate=False, **options) or ""
    from resiliparse.extract.html2text import extract_plain_text

    library = {option: value for option, value in options.items() if option != "line_model"}
    if options.get("line_model"):
        return _with_line_model(library)
    return lambda html: extract_plain_text(html, **library)


def _with_line_model(library: Mapping[str, Any]) -> Extractor:
    """Returns resiliparse's extraction followed by the line model."""
    from resiliparse.extract.html2text import extract_plain_text

    from corpusmill.ingest.line_model import load_weights, refine

    marked = {**library, **MARKUP}
    load_weights()

    def run(html: str) -> str:
        text = refine(
            extract_plain_text(html, **marked), lambda: extract_plain_text(html, **{**marked, "main_content": False})
        )
        return extract_plain_text(html, **library) if text is None else text

    return run


def extract_page(html: bytes, header_charset: str | None, extractor: Extractor) -> Extracted:
    """Returns the text of one page; never raises for what the page holds.

    Args:
        html: The page, HTTP encodings undone.
        header_charset: Charset of the HTTP content type, None where it states none.
        extractor: From `load_extractor`.
    """
    try:
        decoded = decode_html(html, header_charset)
    except UndecodableError as error:
        return Extracted(reason="ingest.undecodable", message=str(error))
    try:
        text = extractor(decoded.text)
    except (MemoryError, RecursionError) as error:
        return Extracted(reason="ingest.extract_failed", message=f"the extractor gave up: {type(error).__name__}")
    except BaseException as error:
        if type(error).__name__ != "PanicException" and not isinstance(error, Exception):
            raise
        return Extracted(reason="ingest.extract_failed", message=f"the extractor failed: {error!r:.300}")
    return Extracted(text, decoded.charset, decoded.source, decoded.n_replaced)
