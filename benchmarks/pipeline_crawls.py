"""The crawls that the pipeline benchmark reads: the given WARC files, altered copies of them, one of a page a file."""

import gzip
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

CRAWL = "CC-BENCH-2024-10"
_MEMBER_BYTES = 64 << 20
"""Bytes in which a gzip member is looked for."""
_RECORD_ID = re.compile(rb"(?i)(WARC-Record-ID: *<urn:uuid:[0-9a-f]{4})[0-9a-f]{4}(-)")
_TEXT_NODE = re.compile(rb">[^<>]+<")
_LONG_WORD = re.compile(rb"(?<![a-zA-Z&])[a-z]{6,}(?![a-zA-Z])")
_SENTENCES = (
    "The old harbour of the town was built by people who traded salt and cloth with the islands in the north.",
    "It is said that the first wall stood for two hundred years, and that the sea took it in a single night.",
    "When the water fell, the masons came back with stones that were cut from the hills behind the church.",
    "They worked through the winter, because nobody could tell how long the weather would stay as mild as this.",
    "A second tower was raised at the end of the pier, so that ships could find their way in the fog.",
    "Children of the village still know a song about the keeper who lived there with his daughter and a dog.",
    "Visitors can climb the stairs on most days of the week, and the view over the bay is worth the effort.",
    "The museum beside the gate shows tools, letters and maps which have been given by families of the region.",
)


def make_crawl(base: Path, files: Sequence[Path]) -> list[str]:
    """Lays files out as a crawl in Common Crawl's layout below a folder; returns their paths there."""
    names = [f"crawl-data/{CRAWL}/segments/1/warc/{number:05d}.warc.gz" for number in range(len(files))]
    for name, file in zip(names, files, strict=True):
        (base / name).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(file.resolve(), base / name)
    (base / "crawl-data" / CRAWL / "warc.paths.gz").write_bytes(gzip.compress("\n".join(names).encode()))
    return names


def members(file: Path) -> Iterator[bytes]:
    """Yields the content of each gzip member of a file."""
    data = memoryview(file.read_bytes())
    while data:
        inflater = zlib.decompressobj(31)
        content = inflater.decompress(data[:_MEMBER_BYTES])
        if not inflater.eof:
            raise SystemExit(f"a gzip member of {file} is cut or larger than {_MEMBER_BYTES} bytes; name another file")
        yield content
        data = data[min(len(data), _MEMBER_BYTES) - len(inflater.unused_data) :]


def with_copies(file: Path, copies: int, folder: Path) -> Path:
    """Writes a WARC file that holds a file's records and altered copies of them, and returns its path."""
    longer = folder / file.name
    with longer.open("wb") as out:
        out.write(file.read_bytes())
        for number in range(1, copies):
            out.writelines(gzip.compress(record, 6) for record in altered_records(file, number))
    return longer


def altered_records(file: Path, number: int) -> Iterator[bytes]:
    """Yields the records of a WARC file with other ids and, in half of the longer words of the text, other letters.

    Lengths stay, stop words and markup too, so that a copy costs and passes rules much as the original does and is no
    duplicate of it.

    Args:
        file: The file, with a gzip member a record.
        number: Number of the copy, 1 to 12.
    """

    def id_of_copy(found: re.Match[bytes]) -> bytes:
        return found[1] + f"{number:04x}".encode() + found[2]

    def word(found: re.Match[bytes]) -> bytes:
        chosen = zlib.crc32(found[0], number) % 2
        return bytes(97 + (letter - 97 + 2 * number) % 26 for letter in found[0]) if chosen else found[0]

    def text_node(found: re.Match[bytes]) -> bytes:
        return _LONG_WORD.sub(word, found[0])

    for content in members(file):
        head, end, block = content.partition(b"\r\n\r\n")
        yield _RECORD_ID.sub(id_of_copy, head) + end + _TEXT_NODE.sub(text_node, block)


def one_page_files(folder: Path, n: int) -> list[Path]:
    """Writes n WARC files, at most 8, of one page that passes all rules; the pages are near duplicates."""
    folder.mkdir(parents=True)
    files = []
    for number in range(n):
        paragraphs = "".join(f"<p>{s}</p>" for s in (*_SENTENCES[number:], *_SENTENCES[:number]))
        html = f"<html><head><title>The harbour</title></head><body><article>{paragraphs}</article></body></html>"
        block = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n" + html.encode()
        head = (
            f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:00000000-0000-0000-0000-{number:012d}>\r\n"
            f"WARC-Date: 2024-02-20T00:00:00Z\r\nWARC-Target-URI: http://harbour.example/{number}\r\n"
            "Content-Type: application/http; msgtype=response\r\nWARC-Identified-Payload-Type: text/html\r\n"
            f"Content-Length: {len(block)}\r\n\r\n"
        )
        files.append(folder / f"{number}.warc.gz")
        files[-1].write_bytes(gzip.compress(head.encode() + block + b"\r\n\r\n"))
    return files
