"""Reads conversion records: text that the crawl's maker extracted (Common Crawl's WET files)."""

from corpusmill.ingest.extract import Extracted
from corpusmill.ingest.records import CrawlRecord

TYPES = ("", "text/plain")


def content_type_of(record: CrawlRecord) -> str:
    """Returns the content type of a conversion record in lower case without parameters."""
    return record.content_type.partition(";")[0].strip().lower()


def extract_conversion(record: CrawlRecord) -> Extracted:
    """Returns the text of a conversion record, which is UTF-8; other bytes become U+FFFD and are counted."""
    try:
        return Extracted(record.block.decode("utf-8"), "utf-8", "header")
    except UnicodeDecodeError:
        text = record.block.decode("utf-8", "replace")
        return Extracted(text, "utf-8", "replaced", text.count("\ufffd"))
