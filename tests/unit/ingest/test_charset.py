"""Which charset decodes a page, and what happens when none does."""

import codecs

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpusmill.ingest.charset import UndecodableError, decode_html, python_codec

GERMAN = "<p>Größe über alles und schön, sagte er. Äpfel, Öl und Übermut.</p>"
RUSSIAN = "<p>Привет, мир! Это обычный русский текст про погоду.</p>" * 3
JAPANESE = "<p>これは日本語のページです。天気が良いので散歩に行きました。</p>" * 3


@pytest.mark.parametrize(
    ("data", "header", "charset", "source"),
    [
        (GERMAN.encode(), "UTF-8", "utf-8", "header"),
        (GERMAN.encode("cp1252"), "ISO-8859-1", "cp1252", "header"),
        (b'<meta charset="utf-8">' + GERMAN.encode(), None, "utf-8", "meta"),
        (b'<META http-equiv=Content-Type content="text/html; charset=windows-1251">' + RUSSIAN.encode("cp1251"), None,
         "cp1251", "meta"),
        (codecs.BOM_UTF8 + GERMAN.encode(), "iso-8859-1", "utf-8", "bom"),
        (codecs.BOM_UTF16_LE + GERMAN.encode("utf-16-le"), None, "utf-16-le", "bom"),
        (GERMAN.encode(), None, "utf-8", "detected"),
        (RUSSIAN.encode("cp1251"), None, "cp1251", "detected"),
        (JAPANESE.encode("shift_jis"), None, "shift_jis", "detected"),
        (GERMAN.encode("cp1252"), "utf-8", "cp1252", "detected"),
        (b'<meta charset="windows-1252">' + GERMAN.encode("cp1252"), "utf-8", "cp1252", "meta"),
        (b'<meta charset="utf-16">' + GERMAN.encode(), None, "utf-8", "meta"),
        (GERMAN.encode(), "no-such-charset", "utf-8", "detected"),
        (JAPANESE.encode("gb18030"), "gb2312", "gb18030", "header"),
        (b"plain", "rot13", "utf-8", "detected"),
        (b"", None, "utf-8", "detected"),
    ],
)  # fmt: skip
def test_charset_and_where_it_came_from(data, header, charset, source):
    decoded = decode_html(data, header)
    assert (decoded.charset, decoded.source, decoded.n_replaced) == (charset, source, 0)
    assert "\ufffd" not in decoded.text
    assert not decoded.text.startswith("\ufeff")


def test_one_bad_byte_does_not_turn_a_utf8_page_into_another_charset():
    decoded = decode_html(GERMAN.encode() * 5 + b"\xff" + GERMAN.encode(), "utf-8")
    assert (decoded.charset, decoded.source, decoded.n_replaced) == ("utf-8", "replaced", 1)
    assert decoded.text == GERMAN * 5 + "\ufffd" + GERMAN


def test_a_page_cut_inside_a_character_keeps_its_charset():
    decoded = decode_html(GERMAN.encode() * 3 + "ü".encode()[:1], "utf-8")
    assert (decoded.charset, decoded.n_replaced) == ("utf-8", 1)


@pytest.mark.parametrize(
    "data",
    [b"%PDF-1.4\0\0\0", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", codecs.BOM_UTF8 + b"\x80\x81" * 50],
    ids=["pdf", "png", "not utf-8"],
)
def test_binary_data_is_undecodable(data):
    with pytest.raises(UndecodableError, match="expected text"):
        decode_html(data, "utf-8")


def test_a_few_zero_bytes_do_not_make_a_page_binary():
    decoded = decode_html(b"<p>a \0 b, and more words that make this a page</p>", "utf-8")
    assert decoded.text.startswith("<p>a \0 b")


def test_utf16_without_a_mark_is_read_where_the_header_says_so():
    assert decode_html((GERMAN * 9).encode("utf-16-le"), "utf-16le").text == GERMAN * 9
    with pytest.raises(UndecodableError, match="binary"):
        decode_html((GERMAN * 9).encode("utf-16-le"), None)


@pytest.mark.parametrize("label", ["", "bogus", "utf-7", "base64", "unicode_escape", "x-user-defined", "\0"])
def test_labels_that_browsers_do_not_know_name_no_codec(label):
    assert python_codec(label) is None


@given(
    st.binary(max_size=400),
    st.sampled_from([None, "utf-8", "cp1252", "shift_jis", "utf-16", "gbk", "iso-2022-jp", "x"]),
)
def test_arbitrary_bytes_are_text_or_undecodable(data, header):
    try:
        decoded = decode_html(data, header)
    except UndecodableError:
        return
    assert isinstance(decoded.text, str)
