"""Extractors, the child process around them, and the extraction fingerprint."""

import os
import signal
import time

import pytest

from corpusmill.errors import ConfigError
from corpusmill.ingest import extract
from corpusmill.ingest.config import IngestConfig, ResiliparseOptions, TrafilaturaOptions
from corpusmill.ingest.extract import extract_page, extraction_fingerprint, load_extractor
from corpusmill.ingest.sandbox import Sandbox

ARTICLE = (
    "<html><head><title>t</title></head><body><nav><a href=/>Home</a> <a href=/x>About us</a></nav>"
    "<article><h1>Rain</h1>"
    + "".join(f"<p>Paragraph {n} tells at length what the weather did on that day in the valley.</p>" for n in range(8))
    + "</article><footer>Imprint and all rights reserved</footer></body></html>"
)
OPTIONS = ResiliparseOptions().model_dump()


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox("resiliparse", OPTIONS, max_seconds=2.0, max_bytes_memory=1024**3) as box:
        yield box


@pytest.mark.parametrize(
    ("name", "options"), [("resiliparse", OPTIONS), ("trafilatura", TrafilaturaOptions().model_dump())]
)
def test_main_content_is_kept_and_the_menu_is_not_and_ten_calls_agree(name, options):
    run = load_extractor(name, options)
    results = {extract_page(ARTICLE.encode(), "utf-8", run) for _ in range(10)}
    assert len(results) == 1
    text = results.pop().text
    assert "Paragraph 7 tells at length" in text
    assert "About us" not in text


def test_resiliparse_is_called_exactly_as_in_the_measurements():
    from resiliparse.extract.html2text import extract_plain_text

    expected = extract_plain_text(
        ARTICLE,
        main_content=True,
        preserve_formatting=True,
        alt_texts=False,
        links=False,
        comments=False,
        form_fields=False,
        noscript=False,
    )
    assert extract_page(ARTICLE.encode(), "utf-8", load_extractor("resiliparse", OPTIONS)).text == expected


def test_an_extractor_that_raises_or_panics_gives_a_reason():
    class PanicException(BaseException):
        pass

    for error in (ValueError("x"), RecursionError(), MemoryError(), PanicException("rust")):

        def failing(html, error=error):
            raise error

        assert extract_page(b"<p>x", None, failing).reason == "ingest.extract_failed"


def test_the_child_gives_what_this_process_gives(sandbox):
    run = load_extractor("resiliparse", OPTIONS)
    for html, charset in (
        (ARTICLE.encode(), "utf-8"),
        (b"", None),
        (b"\xff\0", "x"),
        (("<p>\u4e2d" * 9).encode("gbk"), "gbk"),
    ):
        assert sandbox.extract(html, charset) == extract_page(html, charset, run)


@pytest.mark.slow
def test_a_depth_bomb_times_out_and_the_next_page_is_read():
    with Sandbox("resiliparse", OPTIONS, max_seconds=0.5, max_bytes_memory=2 * 1024**3) as box:
        bomb = b"<div>" * 100_000 + b"deep text that is long enough" + b"</div>" * 100_000
        assert box.extract(bomb, "utf-8").reason == "ingest.extract_timeout"
        assert "Paragraph 7" in box.extract(ARTICLE.encode(), "utf-8").text
        assert box.n_starts == 2


def test_a_page_whose_process_dies_is_tried_in_a_fresh_one(sandbox):
    sandbox.start()
    before = sandbox.n_starts
    os.kill(sandbox._child.pid, signal.SIGKILL)
    assert "Paragraph 7" in sandbox.extract(ARTICLE.encode(), "utf-8").text
    assert sandbox.n_starts == before + 1


@pytest.mark.slow
def test_a_page_that_needs_more_memory_than_the_limit_does_not_take_the_worker():
    with Sandbox("resiliparse", OPTIONS, max_seconds=20.0, max_bytes_memory=512 * 1024**2) as box:
        result = box.extract(b"<p>some words of a paragraph.</p>\n" * 1_500_000, "utf-8")
        assert result.reason in ("ingest.extract_crashed", "ingest.extract_failed")
        assert "Paragraph 7" in box.extract(ARTICLE.encode(), "utf-8").text


def test_the_child_ends_when_its_pipe_closes():
    box = Sandbox("resiliparse", OPTIONS, max_seconds=2.0, max_bytes_memory=None)
    box.start()
    child = box._child
    started = time.monotonic()
    box.close()
    assert child.returncode == 0
    assert time.monotonic() - started < 60


def test_the_childs_environment_holds_no_secrets(monkeypatch, sandbox):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    sandbox.close()
    sandbox.start()
    with open(f"/proc/{sandbox._child.pid}/environ", "rb") as file:
        assert b"AWS_SECRET" not in file.read()


def test_the_fingerprint_names_extractor_version_and_options(monkeypatch):
    base = extraction_fingerprint(IngestConfig())
    others = [
        IngestConfig(extractor="trafilatura"),
        IngestConfig(resiliparse=ResiliparseOptions(links=True)),
        IngestConfig(min_chars=2),
        IngestConfig(kind="wet"),
        IngestConfig(accepted_statuses=(200, 203)),
        IngestConfig(max_files=3),
    ]
    found = [extraction_fingerprint(config) for config in others]
    assert len({base, *found}) == 7
    assert extraction_fingerprint(IngestConfig(max_error_fraction=0.5)) == base
    assert extraction_fingerprint(IngestConfig(trafilatura=TrafilaturaOptions(fast=True))) == base
    monkeypatch.setattr(extract, "version", lambda name: "99.0")
    assert extraction_fingerprint(IngestConfig()) != base


def test_settings_out_of_bounds_are_named():
    with pytest.raises(ConfigError, match="max_seconds"):
        IngestConfig.load({"max_seconds": 0})
    with pytest.raises(ConfigError, match="deduplicate"):
        IngestConfig.load({"trafilatura": {"deduplicate": True}})
