"""The HTML of a crawl file's pages, for what needs markup again: labels by an extractor, seeds for a refiner.

The same records count as pages as in ingestion; those that ingestion would reject are left out without a row, because
they are quarantined there.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from corpusmill.ingest.archive import read_archive
from corpusmill.ingest.charset import UndecodableError, decode_html
from corpusmill.ingest.config import IngestConfig
from corpusmill.ingest.fetch import DEFAULT_POLICY, open_file
from corpusmill.ingest.http_message import BodyTooLargeError, decode_body, parse_response
from corpusmill.ingest.records import CrawlRecord, Fault
from corpusmill.schema import doc_id_of


@dataclass(frozen=True)
class HtmlPage:
    """A fetched page.

    Attributes:
        doc_id: As in ``raw.pages``.
        url: Address that was fetched.
        html: Decoded markup.
    """

    doc_id: str
    url: str
    html: str


def read_html_pages(base: str, warc_file: str, scratch: Path, config: IngestConfig | None = None) -> Iterator[HtmlPage]:
    """Yields the HTML pages of one WARC file in file order.

    Args:
        base: Folder or URL under which the crawl's paths stand.
        warc_file: Path as the crawl's manifest lists it.
        scratch: Folder for a downloaded file; it is removed when the iteration ends.
        config: Limits and accepted types; None: ingestion's defaults.

    Raises:
        TransientDataError: The file could not be fetched now.
        PermanentDataError: The file is no crawl file.
    """
    config = config or IngestConfig()
    with open_file(base, warc_file, scratch, policy=DEFAULT_POLICY, sleep=time.sleep) as file:
        records = read_archive(file, wanted=frozenset({"response"}), max_bytes_record=config.max_bytes_record)
        for record in records:
            if isinstance(record, Fault) or record.kind != "response" or not record.url:
                continue
            html = _html(record, config)
            if html:
                name = f"{warc_file}#{record.index}" if record.index else warc_file
                yield HtmlPage(doc_id_of(record.record_id, name, record.offset), record.url, html)


def _html(record: CrawlRecord, config: IngestConfig) -> str:
    message = parse_response(record.block)
    if message is None or message.status not in config.accepted_statuses:
        return ""
    content_type = record.identified_type or message.content_type
    if content_type and content_type not in config.accepted_types:
        return ""
    try:
        body, _ = decode_body(message, config.max_bytes_html)
        return decode_html(body, message.charset).text if body else ""
    except (BodyTooLargeError, UndecodableError):
        return ""
