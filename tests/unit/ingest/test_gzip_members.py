"""The fast way through sound gzip members says of every file what zlib alone says of it."""

import gzip
import io
import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.ingest import gzip_members
from corpusmill.ingest.warc import opens_warc

Found = list[tuple[int, int, bytes, str, bool]]


def members(data: bytes) -> Found:
    return [
        (m.offset, m.length, m.data.read(), m.error, m.cut)
        for m in gzip_members.gzip_members(io.BytesIO(data), opens_warc)
    ]


def by_zlib_alone(data: bytes) -> Found:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gzip_members, "_inflate_sound", lambda stretch: None)
        return members(data)


def member(n: int, *, flags: int = 0, extra: bytes = b"") -> bytes:
    """A gzip member with header fields of its own."""
    data = b"WARC/1.0\r\nWARC-Type: response\r\n" + b"%d " % n * 40
    deflate = zlib.compressobj(wbits=-15)
    body = deflate.compress(data) + deflate.flush()
    head = gzip_members.MAGIC + bytes([flags]) + bytes(6) + extra
    return head + body + struct.pack("<II", zlib.crc32(data), len(data))


FIVE = [member(n) for n in range(5)]


@pytest.mark.parametrize(
    "data",
    [
        b"".join(FIVE),
        b"".join(FIVE)[:-3],
        b"".join(FIVE) + bytes(99),
        FIVE[0] + bytes(9) + FIVE[1],
        FIVE[0] + b"between" + FIVE[1],
        FIVE[0] + gzip.compress(b"") + FIVE[1],
        member(0, flags=0x08, extra=b"name\0") + FIVE[1],
        member(0, flags=0x04, extra=struct.pack("<H4s", 4, b"sl\0\0")) + FIVE[1],
        member(0, flags=0x02, extra=b"\0\0") + FIVE[1],
        member(0, flags=0x20) + FIVE[1],
        member(0, flags=0x08, extra=gzip_members.MAGIC + b"\0") + FIVE[1],
        gzip_members._SEAL_MEMBER * 3,
        FIVE[0][:-8] + gzip_members._SEAL_MEMBER + FIVE[1],
    ],
    ids=[
        "sound",
        "cut",
        "padded",
        "zeros between",
        "words between",
        "empty member",
        "name",
        "extra field",
        "wrong header checksum",
        "reserved flag",
        "magic inside a name",
        "the seal itself",
        "a cut member before a seal",
    ],
)
def test_members_are_what_zlib_alone_finds(data):
    assert members(data) == by_zlib_alone(data)


def test_sound_members_do_not_need_zlib(monkeypatch):
    monkeypatch.setattr(gzip_members, "_inflate", lambda *args: pytest.fail("went the slow way"))
    assert [m[2] for m in members(b"".join(FIVE))] == [zlib.decompress(m, 31) for m in FIVE]


def test_members_across_windows_and_beyond_the_fast_size_are_read(monkeypatch):
    expected = by_zlib_alone(b"".join(FIVE))
    for window, largest in ((7, 1000), (64, 1000), (7, 20), (1, 0)):
        monkeypatch.setattr(gzip_members, "WINDOW", window)
        monkeypatch.setattr(gzip_members, "LARGEST_FAST", largest)
        assert members(b"".join(FIVE)) == expected


@settings(max_examples=80, deadline=None)
@given(
    at=st.integers(0, sum(map(len, FIVE)) - 1),
    length=st.integers(0, 40),
    put=st.binary(max_size=40) | st.just(gzip_members.MAGIC) | st.just(gzip_members._SEAL_MEMBER),
)
def test_damage_is_reported_as_by_zlib_alone(at, length, put):
    data = b"".join(FIVE)
    damaged = data[:at] + put + data[at + length :]
    assert members(damaged) == by_zlib_alone(damaged)
