"""Settings of crawl ingestion; light enough for DAG files."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from corpusmill.config import StageConfig

MIB = 1024 * 1024


class ResiliparseOptions(StageConfig):
    """Arguments of resiliparse's ``extract_plain_text``; the defaults are the call that the measurements used."""

    main_content: bool = True
    """Leave out menus, footers and other boilerplate."""
    preserve_formatting: bool = True
    """Keep blank lines between paragraphs; without them Gopher's paragraph rules never fire."""
    list_bullets: bool = True
    """Write a bullet before list items (the library's default)."""
    alt_texts: bool = False
    """Keep alternative texts of pictures."""
    links: bool = False
    """Append link targets."""
    comments: bool = False
    """Keep sections of readers' comments."""
    form_fields: bool = False
    """Keep the values of form fields."""
    noscript: bool = False
    """Keep ``<noscript>`` elements."""
    line_model: bool = False
    """Drop lines that `corpusmill.ingest.line_model` takes for boilerplate, and look at the full text of pages with
    hardly any main text. Needs ``main_content`` and ``preserve_formatting``."""

    @model_validator(mode="after")
    def _line_model_has_lines(self) -> Self:
        if self.line_model and not (self.main_content and self.preserve_formatting and not self.links):
            raise ValueError(
                "line_model=True needs main_content=True, preserve_formatting=True and links=False, because the model "
                "was fitted on such text"
            )
        return self


class TrafilaturaOptions(StageConfig):
    """Arguments of trafilatura's ``extract``; ``deduplicate`` is always False, because True is not repeatable."""

    favor_precision: bool = True
    """Prefer less text that is right; as FineWeb does."""
    favor_recall: bool = False
    """Prefer more text."""
    include_comments: bool = False
    """Keep readers' comments."""
    include_tables: bool = True
    """Keep the text of tables."""
    fast: bool = False
    """Skip the fallback extractors: about twice as fast, more empty results."""


class IngestConfig(StageConfig):
    """Settings of `corpusmill.ingest.stage.IngestStage`."""

    kind: Literal["warc", "wet"] = "warc"
    """``warc`` reads fetched pages and extracts their text; ``wet`` takes the text that the crawl's maker extracted."""
    extractor: Literal["resiliparse", "trafilatura"] = "resiliparse"
    """Extractor of main content. Resiliparse is 6 to 16 times faster, trafilatura leaves less boilerplate."""
    resiliparse: ResiliparseOptions = ResiliparseOptions()
    """Options where ``extractor`` is ``resiliparse``."""
    trafilatura: TrafilaturaOptions = TrafilaturaOptions()
    """Options where ``extractor`` is ``trafilatura``."""
    accepted_statuses: tuple[int, ...] = (200,)
    """HTTP status codes whose pages are read."""
    accepted_types: tuple[str, ...] = ("text/html", "application/xhtml+xml")
    """Content types that are read; the type a crawl identified goes before the server's word."""
    max_bytes_html: Annotated[int, Field(gt=0)] = 16 * MIB
    """Largest page in bytes after HTTP content decoding; larger ones are quarantined. Common Crawl cuts at 5 MiB."""
    max_bytes_record: Annotated[int, Field(gt=0)] = 256 * MIB
    """Largest record block in bytes that is taken into memory; larger ones are quarantined."""
    max_seconds: Annotated[float, Field(gt=0)] | None = 10.0
    """CPU seconds a page may take in the extractor's child process (wall limit: four times that and 5 s more).
    None extracts in this process, without limits of time or memory."""
    max_bytes_memory: Annotated[int, Field(ge=512 * MIB)] | None = 4096 * MIB
    """Address space of the extractor's child process in bytes; None sets no limit."""
    min_chars: Annotated[int, Field(ge=1)] = 1
    """Fewest characters of text a page must have; shorter ones are counted, empty ones are quarantined."""
    max_error_fraction: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of responses of a shard that may be quarantined before the shard fails."""
    max_files: Annotated[int, Field(gt=0)] | None = None
    """Read only the first so many files of the crawl's manifest; None reads all."""
