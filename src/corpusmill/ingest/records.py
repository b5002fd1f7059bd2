"""What the readers of WARC and ARC files yield: whole records, and faults where bytes were lost."""

from dataclasses import dataclass
from datetime import UTC, datetime

from corpusmill.ingest.gzip_members import Member

FIRST_BYTES = 200  # bytes of a faulty input that are shown to a person


@dataclass(frozen=True, slots=True)
class CrawlRecord:
    """One record of a crawl file.

    Attributes:
        kind: WARC-Type in lower case; every captured page of an ARC file is a ``response``.
        offset: Byte offset in the file of the gzip member that holds the record (of the record, where not compressed).
        length: Bytes of that gzip member (of the record, where not compressed).
        index: Place of the record inside its gzip member; 0 in files that are compressed record by record.
        record_id: WARC-Record-ID as written, None where there is none (ARC).
        url: WARC-Target-URI without angle brackets and outer blanks, ``""`` where there is none.
        date: Time of capture, None where it is missing or unreadable.
        block: The record's block (HTTP head and body for responses); ``b""`` for kinds that were not asked for.
        content_type: Content-Type of the record (not of the page), ``""`` where there is none.
        identified_type: WARC-Identified-Payload-Type in lower case, ``""`` where there is none.
        truncated: WARC-Truncated as written (``length``, ``time``), ``""`` where the page is whole.
    """

    kind: str
    offset: int
    length: int
    index: int = 0
    record_id: str | None = None
    url: str = ""
    date: datetime | None = None
    block: bytes = b""
    content_type: str = ""
    identified_type: str = ""
    truncated: str = ""


@dataclass(frozen=True, slots=True)
class Fault:
    """A place of a crawl file that could not be read.

    Attributes:
        offset: Byte offset in the file.
        reason: Machine reason (``ingest.bad_gzip_member``).
        message: What was wrong, with the value and what was expected.
        first_bytes: The first bytes found there, at most 200.
        url: URL of the record where it could be read, else ``""``.
        n_bytes_lost: Bytes of the file that were skipped.
    """

    offset: int
    reason: str
    message: str
    first_bytes: bytes = b""
    url: str = ""
    n_bytes_lost: int = 0


def parse_time(text: str) -> datetime | None:
    """Returns a UTC time for WARC dates (ISO 8601) and ARC dates (up to 14 digits), None where it is not one."""
    value = text.strip()
    try:
        if value.isdigit():
            return datetime.strptime(value[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC) if len(value) >= 14 else None
        parsed = datetime.fromisoformat(value)
    except ValueError:
        return None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def damaged_member(member: Member, n_saved: int) -> Fault:
    """Returns the fault of a gzip member that is corrupt or cut.

    Args:
        member: The member; its data is read from the start.
        n_saved: Records of it that were yielded all the same.
    """
    member.data.seek(0)
    return Fault(
        member.offset,
        "ingest.cut_gzip_member" if member.cut else "ingest.bad_gzip_member",
        f"{member.error}; {member.length} bytes were skipped, {n_saved} records of them could be saved",
        member.data.read(FIRST_BYTES),
        n_bytes_lost=member.length,
    )
