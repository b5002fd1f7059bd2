"""HTTP heads and encodings of stored responses."""

import gzip
import zlib

import brotli
import pytest

from corpusmill.ingest.http_message import BodyTooLargeError, decode_body, parse_head, parse_response

PAGE = b"<html><p>" + b"some words of a page " * 50 + b"</p></html>"
RAW_DEFLATE = zlib.compress(PAGE)[2:-4]


def response(body: bytes, *headers: str, status: str = "HTTP/1.1 200 OK"):
    head = "\r\n".join([status, *headers]).encode("latin-1")
    return parse_response(head + b"\r\n\r\n" + body)


def chunked(body: bytes, size: int = 100) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(p), p) for p in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ([], PAGE),
        (["Content-Encoding: gzip"], gzip.compress(PAGE)),
        (["content-encoding: X-GZIP"], gzip.compress(PAGE)),
        (["Content-Encoding: deflate"], zlib.compress(PAGE)),
        (["Content-Encoding: deflate"], RAW_DEFLATE),
        (["Content-Encoding: br"], brotli.compress(PAGE)),
        (["Transfer-Encoding: chunked"], chunked(PAGE)),
        (["Transfer-Encoding: chunked", "Content-Encoding: gzip"], chunked(gzip.compress(PAGE))),
        (["Content-Encoding: gzip"], PAGE),
        (["Content-Encoding: br"], PAGE),
        (["Content-Encoding: deflate"], PAGE),
        (["Transfer-Encoding: chunked"], PAGE),
        (["Content-Encoding: identity"], PAGE),
        (["Content-Encoding: nonsense"], PAGE),
    ],
)
def test_encodings_are_undone_and_bodies_stored_decoded_are_taken_as_they_are(headers, body):
    assert decode_body(response(body, *headers), 10_000) == (PAGE, True)


@pytest.mark.parametrize(
    ("encoding", "body"),
    [("gzip", gzip.compress(PAGE)[:-12]), ("deflate", zlib.compress(PAGE)[:-6])],
)
def test_a_body_cut_while_encoded_gives_its_beginning_and_is_not_whole(encoding, body):
    data, whole = decode_body(response(body, f"Content-Encoding: {encoding}"), 10_000)
    assert not whole
    assert data
    assert PAGE.startswith(data)


@pytest.mark.parametrize(
    ("encoding", "bomb"),
    [
        ("gzip", gzip.compress(bytes(200_000_000), 1)),
        ("deflate", zlib.compress(bytes(200_000_000), 1)),
        ("br", brotli.compress(bytes(200_000_000), quality=1)),
    ],
    ids=["gzip", "deflate", "br"],
)
def test_a_bomb_stops_at_the_limit(encoding, bomb):
    with pytest.raises(BodyTooLargeError, match="larger than 1000000 bytes"):
        decode_body(response(bomb, f"Content-Encoding: {encoding}"), 1_000_000)


@pytest.mark.parametrize("block", [b"", b"<html>", b"GET / HTTP/1.1\r\n\r\n", b"\x00\xff"])
def test_blocks_without_a_status_line_are_no_response(block):
    assert parse_response(block) is None


def test_heads_of_sloppy_servers_are_read():
    message = parse_response(b"HTTP/1.0 404\nContent-type:TEXT/HTML;Charset='koi8-r'\nX: a\n b\nbroken line\n\nbody")
    assert (message.status, message.content_type, message.charset) == (404, "text/html", "koi8-r")
    assert (message.headers["x"], message.body) == ("a b", b"body")
    assert parse_response(b"HTTP/1.1 none of that\r\n\r\n").status is None
    assert parse_response(b"HTTP/1.1 200 OK\r\nA: b").body == b""


def test_of_repeated_headers_the_first_counts_and_bytes_beyond_utf8_are_latin_1():
    assert parse_head(b"X\r\nA: \xe9\r\na: 2\r\n") == ("X", {"a": "\xe9"})
