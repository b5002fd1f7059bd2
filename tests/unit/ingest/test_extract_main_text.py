"""The line model behind resiliparse: what it drops, what it must keep, and its bounds."""

import importlib
import json
import random
from importlib.resources import files
from pathlib import Path

import pytest
from resiliparse.extract.html2text import extract_plain_text

from corpusmill.errors import ConfigError
from corpusmill.ingest import line_model
from corpusmill.ingest.config import IngestConfig, ResiliparseOptions
from corpusmill.ingest.extract import MARKUP, extract_page, extraction_fingerprint, load_extractor
from corpusmill.ingest.line_model import FEATURES, MOST_LINES, load_weights
from corpusmill.ingest.marked_lines import read_marked_lines, render
from corpusmill.ingest.stage import IngestStage

PLAIN = ResiliparseOptions().model_dump()
REFINED = ResiliparseOptions(line_model=True).model_dump()
SENTENCES = (
    "The river rose two metres in the night, and the lower bridge was closed to lorries before the morning came.",
    "Nobody was hurt, although three families in the old mill had to leave their homes and stayed with neighbours.",
    "The council met at noon and decided to raise the dam by half a metre, which will cost more than was planned.",
    "Farmers along the valley said that the water took their hay, but that the cattle had been moved in good time.",
    "On the third day the rain stopped, and the fire brigade began to pump out the cellars one street at a time.",
    "An engineer explained that the pumps can take forty litres a second and that two more of them are on their way.",
)
BODY = "".join(f"<p>{sentence}</p>" for sentence in SENTENCES)
TEASERS = "".join(f'<div><a href="/s/{n}">Ten things about story number {n}</a></div>' for n in range(8))
PAGE = (
    "<html><body><div class='wrap'><h1>High water in the valley</h1><div>Share</div><div>Tweet</div>"
    f"<div class='text'>{BODY}</div><div>You may also like</div>{TEASERS}</div></body></html>"
)


@pytest.fixture(scope="module")
def run():
    return load_extractor("resiliparse", REFINED)


def marked(html, **options):
    library = {k: v for k, v in PLAIN.items() if k != "line_model"}
    return read_marked_lines(extract_plain_text(html, **{**library, **MARKUP, **options}))


def test_share_buttons_and_teasers_go_and_every_sentence_stays(run):
    before = extract_page(PAGE.encode(), "utf-8", load_extractor("resiliparse", PLAIN)).text
    after = extract_page(PAGE.encode(), "utf-8", run).text
    assert "Tweet" in before
    assert "story number 5" in before
    assert "Tweet" not in after
    assert "story number" not in after
    assert all(sentence in after for sentence in SENTENCES)


def test_lines_say_links_elements_and_gaps():
    html = (
        "<main><h2>Head</h2><p>Some <a href='/x?a=\"1\"&b=<2>'>linked</a> &lt;words&gt;</p>"
        "<ul><li>one</li><li>two<ul><li>inner</li></ul></li></ul><ol><li>first</li><li>second</li></ol>"
        "<pre>if a &lt; b:\n    return c</pre><div>bare<br>after</div></main>"
    )
    lines = marked(html, main_content=False)
    assert [(line.prefix + line.text, line.kind) for line in lines] == [
        ("Head", "heading"),
        ("Some linked <words>", "paragraph"),
        ("  \u2022 one", "item"),
        ("  \u2022 two", "item"),
        ("    \u2022 inner", "item"),
        ("  1. first", "item"),
        ("  2. second", "item"),
        ("if a < b:", "code"),
        ("    return c", "code"),
        ("bare", "text"),
        ("after", "text"),
    ]
    assert [line.gap for line in lines[:3]] == [False, True, True]
    assert lines[1].link_share == pytest.approx(len("linked") / len("Some linked <words>"))
    assert {line.link_share for line in lines if line is not lines[1]} == {0.0}


def test_a_link_over_lines_counts_on_each_of_them():
    lines = marked("<div><a href='/x'>over<br>two lines</a> and out</div>", main_content=False)
    assert [line.text for line in lines] == ["over", "two lines and out"]
    assert lines[0].link_share == 1.0
    assert lines[1].link_share == pytest.approx(len("two lines") / len("two lines and out"))


def test_all_lines_together_are_the_library_s_text():
    library = {k: v for k, v in PLAIN.items() if k != "line_model"}
    assert render(marked(PAGE)) == extract_plain_text(PAGE, **library).strip("\n")


def test_characters_without_an_alphabet_count_for_more():
    (line,) = marked("<p>\u5927\u6c34\u304c\u51fa\u305f</p>", main_content=False)
    assert line.width == 12.5


def test_code_is_never_dropped(run):
    code = "\n".join(f"x{n} = {n}" for n in range(12))
    page = f"<html><body><article>{BODY}<pre>{code}</pre>{BODY}</article></body></html>"
    assert code in run(page)


def test_a_page_unlike_any_article_is_left_as_it_is(run):
    page = (
        "<html><body><main>" + "".join(f"<div>item {n} 12.{n} EUR</div>" for n in range(40)) + "</main></body></html>"
    )
    assert run(page).split() == load_extractor("resiliparse", PLAIN)(page).split()


def test_a_page_whose_main_content_is_missed_gets_a_second_opinion(run):
    page = f"<html><body><div class='sidebar related'>{BODY}{BODY}</div><div>Welcome to our site</div></body></html>"
    assert SENTENCES[0] not in load_extractor("resiliparse", PLAIN)(page)
    assert SENTENCES[0] in run(page)


def test_texts_do_not_depend_on_the_pages_before(run):
    dice = random.Random(5)
    pages = [PAGE, "<p>x", "", f"<article>{BODY}</article>", TEASERS, "<pre>a\nb</pre>"]
    alone = {page: run(page) for page in pages}
    for page in dice.choices(pages, k=60):
        assert run(page) == alone[page]


@pytest.mark.parametrize(
    "page", ["", "<", "<a href='", "<pre>", "</ul></ol>", "<li>x", "<ol><li>" * 50, "\0\ud800<p>x"]
)
def test_odd_pages_give_text_or_a_reason(run, page):
    result = extract_page(page.encode("utf-8", "surrogatepass"), "utf-8", run)
    assert result.reason in ("", "ingest.extract_failed", "ingest.undecodable")


def test_a_page_with_more_lines_than_the_model_takes_is_the_library_s(run):
    page = "<html><body><main>" + "<div>a</div>" * (MOST_LINES + 1) + "</main></body></html>"
    assert run(page) == load_extractor("resiliparse", PLAIN)(page)


def test_every_feature_has_a_weight_and_the_file_no_other():
    stored = json.loads(files("corpusmill.ingest").joinpath("line_model.json").read_text())
    assert tuple(stored["weights"]) == FEATURES
    assert load_weights().shape == (len(FEATURES),)


def test_the_line_model_is_part_of_the_fingerprint_and_its_absence_is_not(monkeypatch):
    with_model = IngestConfig(resiliparse=ResiliparseOptions(line_model=True))
    before = extraction_fingerprint(with_model)
    assert before != extraction_fingerprint(IngestConfig())
    monkeypatch.setattr(line_model, "RULES", 99)
    assert extraction_fingerprint(with_model) not in (before, extraction_fingerprint(IngestConfig()))


@pytest.mark.parametrize("other", [{"main_content": False}, {"preserve_formatting": False}, {"links": True}])
def test_the_line_model_refuses_text_that_it_was_not_made_for(other):
    with pytest.raises(ConfigError, match="line_model=True needs"):
        IngestConfig.load({"resiliparse": {"line_model": True, **other}})


def test_the_stage_runs_it_in_the_child_process(tmp_path):
    body = PAGE.encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
    record = (
        b"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:1>\r\nWARC-Target-URI: http://a.example/\r\n"
        b"WARC-Date: 2024-01-01T00:00:00Z\r\nContent-Type: application/http; msgtype=response\r\n"
        b"Content-Length: %d\r\n\r\n" % len(head + body)
    ) + head + body + b"\r\n\r\n"  # fmt: skip
    (tmp_path / "a.warc").write_bytes(record)
    stage = IngestStage(IngestConfig(resiliparse=ResiliparseOptions(line_model=True)))
    (output,) = stage.read_local(tmp_path / "a.warc")
    stage.close()
    assert output.kept.column("text").to_pylist() == [load_extractor("resiliparse", REFINED)(PAGE)]


@pytest.mark.slow
def test_pages_of_domains_that_it_was_not_fitted_on_come_out_better(run, shared_data, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[3] / "benchmarks"))
    gold = importlib.import_module("gold_pages")
    pages = [page for page in gold.read_gold_pages(shared_data / "crawls") if gold.domain_half(page.domain) == 1]
    plain = load_extractor("resiliparse", PLAIN)
    scores = {
        name: gold.judge_texts(pages, {page.doc_id: extract(page.html) for page in pages})
        for name, extract in (("plain", plain), ("line model", run))
    }
    assert len(pages) > 400
    assert scores["line model"]["f1"] >= 0.895
    assert scores["line model"]["f1"] >= scores["plain"]["f1"] + 0.025
    assert scores["line model"]["found"] >= 0.93
    assert scores["line model"]["leaked"] <= 0.15
