"""The ingestion stage: crawl files in, rows of ``raw.pages`` and quarantine out.

It is a source, not a map stage: its input is a file of the crawl's manifest. A page of text becomes a row. What is not
a page of text (redirects, pictures, revisits) is counted by reason. What should have been one and could not be read
becomes a quarantine row.
"""

import io
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from corpusmill.batches import replace_surrogates, rows_to_table
from corpusmill.config import StageConfig
from corpusmill.errors import PermanentDataError
from corpusmill.ingest.archive import read_archive
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.crawl import parse_manifest
from corpusmill.ingest.extract import Extracted, Extractor, extract_page, extraction_fingerprint, load_extractor
from corpusmill.ingest.fetch import DEFAULT_POLICY, FetchPolicy, open_file
from corpusmill.ingest.http_message import BodyTooLargeError, HttpMessage, decode_body, parse_response
from corpusmill.ingest.records import FIRST_BYTES, CrawlRecord, Fault
from corpusmill.ingest.sandbox import Sandbox
from corpusmill.ingest.wet import TYPES, content_type_of, extract_conversion
from corpusmill.schema import PAGES, doc_id_of, text_digest
from corpusmill.stage import QuarantinedInput, StageOutput

MAX_ROWS = 1000
"""Rows of a batch at most."""
MAX_CHARS = 64_000_000
"""Characters of text after which a batch is closed; bounds memory where pages are huge."""

_WET_NAME = re.compile(r"\.wet(\.gz|\.txt)?$|^wet\.paths(\.gz)?$")
Row = dict[str, object]


class IngestStage:
    """Reads crawl files into rows of ``raw.pages``."""

    name = "ingest"
    output_schema: pa.Schema = PAGES.schema

    def __init__(
        self,
        config: IngestConfig,
        *,
        policy: FetchPolicy = DEFAULT_POLICY,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.config = config
        self.policy = policy
        self.sleep = sleep
        self.extraction = extraction_fingerprint(config)
        self._sandbox: Sandbox | None = None
        self._extractor: Extractor | None = None

    def setup(self) -> None:
        """Loads the extractor, in its child process where there is a time limit. Once per process."""
        if self.config.kind == "wet" or self._sandbox or self._extractor:
            return
        chosen: StageConfig = getattr(self.config, self.config.extractor)
        options = chosen.model_dump()
        if self.config.max_seconds is None:
            self._extractor = load_extractor(self.config.extractor, options)
            return
        self._sandbox = Sandbox(
            self.config.extractor,
            options,
            max_seconds=self.config.max_seconds,
            max_bytes_memory=self.config.max_bytes_memory,
        )
        self._sandbox.start()

    def close(self) -> None:
        """Ends the extractor's child process; `setup` starts it again."""
        if self._sandbox:
            self._sandbox.close()
        self._sandbox = self._extractor = None

    def read_file(self, base: str, warc_file: str, crawl: str, scratch: Path) -> Iterator[StageOutput]:
        """Yields the pages of one file of a crawl in file order, at most 1,000 a batch.

        ``removed`` is always empty; a file without any page still yields one output, which carries its counts.

        Args:
            base: Folder or URL under which the crawl's paths stand.
            warc_file: Path as the crawl's manifest lists it.
            crawl: Crawl id.
            scratch: Folder for a downloaded file; it is removed when the iteration ends.

        Raises:
            TransientDataError: The file could not be fetched now; nothing of it was lost.
        """
        try:
            with open_file(base, warc_file, scratch, policy=self.policy, sleep=self.sleep) as file:
                yield from self._read(file, warc_file, crawl)
        except PermanentDataError as error:
            bad = QuarantinedInput(where=warc_file, reason="ingest.bad_file", message=str(error))
            yield self._output([], [bad], Counter({"files": 1, "bad_files": 1}))

    def read_local(self, path: str | Path, crawl: str = "local") -> Iterator[StageOutput]:
        """Yields the pages of a WARC, WET or ARC file, or of all the files that a manifest beside them lists.

        A file named ``*.wet``, ``*.wet.gz`` or ``wet.paths.gz`` is read as WET also where the settings say WARC; its
        rows carry WET's extraction fingerprint. A manifest is a file named ``*.paths`` or ``*.paths.gz``; its paths are
        relative to the nearest folder above it that holds the first of them.

        Args:
            path: The file.
            crawl: Crawl id to write into the rows.

        Raises:
            PermanentDataError: The file is missing, or no crawl file and no manifest.
        """
        place = Path(path).resolve()
        if self.config.kind == "warc" and _WET_NAME.search(place.name):
            yield from IngestStage(self.config.model_copy(update={"kind": "wet"})).read_local(place, crawl)
            return
        if not place.name.endswith((".paths", ".paths.gz")):
            if not place.is_file():
                raise PermanentDataError(f"file {str(path)!r} does not exist; expected a WARC, WET or ARC file")
            with place.open("rb") as file:
                yield from self._read(file, place.name, crawl)
            return
        listed = parse_manifest(place.read_bytes(), str(path))
        base = next((folder for folder in place.parents if (folder / listed[0]).is_file()), None)
        if base is None:
            raise PermanentDataError(
                f"no folder above {str(path)!r} holds {listed[0]!r}, the first path of that manifest"
            )
        for warc_file in listed[: self.config.max_files]:
            yield from self.read_file(str(base), warc_file, crawl, place.parent)

    def _read(self, file: BinaryIO, warc_file: str, crawl: str) -> Iterator[StageOutput]:
        """Yields the batches of one open file."""
        self.setup()
        batch = _Batch(self, warc_file, crawl)
        batch.counts["files"] += 1
        batch.counts["bytes"] += file.seek(0, io.SEEK_END)
        wanted = frozenset({"response"} if self.config.kind == "warc" else {"conversion"})
        yielded = False
        for item in read_archive(file, wanted=wanted, max_bytes_record=self.config.max_bytes_record):
            batch.add(item)
            if len(batch.rows) >= MAX_ROWS or batch.n_chars >= MAX_CHARS:
                yield batch.close()
                yielded = True
        if not yielded or batch.rows or batch.faults or batch.counts:
            yield batch.close()

    def _output(self, rows: list[Row], faults: list[QuarantinedInput], counts: Counter[str]) -> StageOutput:
        """Returns one output."""
        return StageOutput(
            kept=rows_to_table(rows, PAGES.schema),
            removed=PAGES.schema.empty_table(),
            quarantine=faults,
            metrics={name: float(n) for name, n in sorted(counts.items())},
        )

    def _extract(self, html: bytes, charset: str | None) -> Extracted:
        """Returns the text of one page."""
        if self._sandbox:
            return self._sandbox.extract(html, charset)
        assert self._extractor is not None
        return extract_page(html, charset, self._extractor)


class _Batch:
    """Rows, faults and counts of one file that were not yet yielded."""

    def __init__(self, stage: IngestStage, warc_file: str, crawl: str) -> None:
        self.stage = stage
        self.config = stage.config
        self.warc_file = warc_file
        self.crawl = crawl
        self.seen: set[str] = set()
        self.rows: list[Row] = []
        self.faults: list[QuarantinedInput] = []
        self.counts: Counter[str] = Counter()
        self.n_chars = 0

    def close(self) -> StageOutput:
        """Returns what was collected, and begins anew."""
        output = self.stage._output(self.rows, self.faults, self.counts)
        self.rows, self.faults, self.counts, self.n_chars = [], [], Counter(), 0
        return output

    def add(self, item: CrawlRecord | Fault) -> None:
        """Takes one record or fault of the file."""
        if isinstance(item, Fault):
            self.counts["bytes_lost"] += item.n_bytes_lost
            self._quarantine(item)
            return
        self.counts["records"] += 1
        if item.kind == "response" and self.config.kind == "warc":
            self._response(item)
        elif item.kind == "conversion" and self.config.kind == "wet":
            self._conversion(item)
        elif item.kind in ("revisit", "resource", "response", "conversion"):
            self.counts[f"ingest.{item.kind}"] += 1

    def _response(self, record: CrawlRecord) -> None:
        """Takes one fetched page."""
        self.counts["responses"] += 1
        message = parse_response(record.block)
        if message is None:
            expected = "expected a status line such as 'HTTP/1.1 200 OK'"
            self._reject(record, "ingest.bad_http", f"the response begins with {record.block[:40]!r}; {expected}")
            return
        if message.status not in self.config.accepted_statuses:
            self.counts["ingest.http_status"] += 1
            return
        content_type = record.identified_type or message.content_type
        if content_type and content_type not in self.config.accepted_types:
            self.counts["ingest.content_type"] += 1
            return
        try:
            html, whole = decode_body(message, self.config.max_bytes_html)
        except BodyTooLargeError as error:
            self._reject(record, "ingest.too_large", str(error))
            return
        self.counts["bytes_html"] += len(html)
        if not html:
            self._reject(record, "ingest.no_text", "the page is empty: no bytes after the HTTP head")
            return
        page = self.stage._extract(html, message.charset)
        self._page(record if whole else replace(record, truncated=record.truncated or "encoding"), page, html, message)

    def _conversion(self, record: CrawlRecord) -> None:
        """Takes one record of text."""
        self.counts["conversions"] += 1
        if content_type_of(record) not in TYPES:
            self.counts["ingest.content_type"] += 1
            return
        self._page(record, extract_conversion(record), b"", None)

    def _page(self, record: CrawlRecord, page: Extracted, html: bytes, message: HttpMessage | None) -> None:
        """Makes a row of a page's text, or rejects it."""
        if page.charset_source:
            self.counts[f"charset_{page.charset_source}"] += 1
        self.counts["n_replaced"] += page.n_replaced
        if page.reason:
            self._reject(record, page.reason, page.message, html)
            return
        text, n_surrogates = replace_surrogates(page.text)
        self.counts["n_surrogates"] += n_surrogates
        doc_id = doc_id_of(record.record_id, self._file_part(record), record.offset)
        if not text.strip():
            self._reject(record, "ingest.no_text", f"the extractor found no text in {len(html)} bytes of HTML", html)
        elif len(text) < self.config.min_chars:
            self.counts["ingest.min_chars"] += 1
        elif not record.url:
            self._reject(record, "ingest.no_url", "the record has no WARC-Target-URI; expected one", html)
        elif doc_id in self.seen:
            self._reject(
                record, "ingest.duplicate_id", f"doc_id={doc_id!r} stands in this file already; kept the first"
            )
        else:
            self.seen.add(doc_id)
            self.counts["pages"] += 1
            self.counts["characters"] += len(text)
            self.n_chars += len(text)
            self.rows.append(
                {
                    "crawl": self.crawl,
                    "extraction": self.stage.extraction,
                    "doc_id": doc_id,
                    "url": replace_surrogates(record.url)[0],
                    "fetch_time": record.date,
                    "warc_file": self.warc_file,
                    "warc_offset": record.offset,
                    "warc_length": record.length,
                    "http_status": message.status if message else None,
                    "content_type": (record.identified_type or message.content_type or None)
                    if message
                    else "text/plain",
                    "charset": page.charset,
                    "n_bytes_html": len(html) if message else None,
                    "text": text,
                    "text_digest": text_digest(text),
                    "n_chars": len(text),
                    "n_surrogates": n_surrogates,
                    "truncated": bool(record.truncated),
                }
            )

    def _file_part(self, record: CrawlRecord) -> str:
        """Returns what names the file in an id; records without an id that share a gzip member must not share ids."""
        return f"{self.warc_file}#{record.index}" if record.index else self.warc_file

    def _reject(self, record: CrawlRecord, reason: str, message: str, data: bytes = b"") -> None:
        """Quarantines one record."""
        self._quarantine(Fault(record.offset, reason, message, data or record.block, record.url))

    def _quarantine(self, fault: Fault) -> None:
        """Quarantines one fault of the file."""
        self.counts["quarantined"] += 1
        self.faults.append(
            QuarantinedInput(
                where=f"{self.warc_file}:{fault.offset}",
                reason=fault.reason,
                message=replace_surrogates(fault.message)[0],
                first_bytes=fault.first_bytes[:FIRST_BYTES],
                url=replace_surrogates(fault.url)[0],
                n_bytes_lost=fault.n_bytes_lost,
            )
        )
