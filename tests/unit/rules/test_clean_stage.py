"""The stage: its contract, its decisions, its reasons, and that no text makes it raise."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpusmill.rules.config import RulesConfig
from corpusmill.rules.decision import decide
from corpusmill.rules.stage import CleanStage
from corpusmill.schema import DOCUMENTS, RULE_MEASURES, text_digest
from corpusmill.stage import Stage

PARAGRAPHS = [
    "The river rises in the hills to the north of the old town and runs past the mill that the monks built.",
    "Every spring the people of the valley have a market there, with bread, cheese and wool from their farms.",
    "It is said that the first bridge was made of wood, and that a flood took it away in a single night.",
    "The stone bridge which followed has been standing for four hundred years and is still in daily use.",
    "Visitors can walk along both banks of the water and look at the wheels that once drove the mill stones.",
    "In winter the path to the upper weir is closed, because the snow makes the steps too dangerous to climb.",
]
GOOD = "\n".join(PARAGRAPHS)
GERMAN = (
    "Der Fluss entspringt in den Bergen im Norden der alten Stadt und fliesst an der Muehle vorbei.\n"
    "Jedes Jahr im Fruehling gibt es dort einen Markt mit Brot, Kaese und Wolle von den Hoefen.\n"
    "Man sagt, dass die erste Bruecke aus Holz war und in einer einzigen Nacht verschwand."
)


def _table(texts, urls=None):
    n = len(texts)
    columns = {
        "crawl": ["CC-TEST"] * n,
        "doc_id": [f"d{i}" for i in range(n)],
        "url": urls or ["https://example.org/page"] * n,
        "warc_file": ["f.warc.gz"] * n,
        "text": texts,
    }
    return pa.table({k: pa.array(v, pa.large_string()) for k, v in columns.items()})


def _rows(output):
    return {row["doc_id"]: row for row in output.kept.to_pylist() + output.removed.to_pylist()}


@pytest.fixture(scope="module")
def stage():
    made = CleanStage(RulesConfig())
    made.setup()
    return made


def test_the_stage_keeps_the_contract(stage):
    assert isinstance(stage, Stage)
    output = stage.process(_table([GOOD, "short", GERMAN]))
    assert output.kept.num_rows + output.removed.num_rows == 3
    assert output.kept.schema.equals(DOCUMENTS.schema)
    assert output.removed.schema.equals(DOCUMENTS.schema)


def test_an_empty_batch_gives_empty_tables(stage):
    output = stage.process(_table([]))
    assert (output.kept.num_rows, output.removed.num_rows) == (0, 0)


def test_a_kept_document_has_its_cleaned_text_digest_and_measures(stage):
    text = (
        GOOD
        + "\nWrite to me@farm.example.net for the use of cookies.\nAsk jane@mill.example.net about the mill [1] now.\n"
    )
    row = stage.process(_table([text])).kept.to_pylist()[0]
    assert "use of cookies" not in row["text"]
    assert "[1]" not in row["text"]
    assert "mill.example.net" not in row["text"]
    assert row["n_pii"] == 1
    assert (row["n_chars_raw"], row["n_chars"]) == (len(text), len(row["text"]))
    assert row["dedup_digest"] == text_digest(" ".join(row["text"].split()))
    assert (row["language"], row["drop_reason"]) == ("en", None)
    assert row["gopher_quality_n_words"] > 100
    assert row["c4_n_lines_removed"] == 1


def test_a_removed_document_keeps_reason_and_all_measures_but_no_text(stage):
    row = stage.process(
        _table([GOOD.replace("the river", "x") + "\n{ this is a line with a bracket."])
    ).removed.to_pylist()[0]
    assert row["drop_reason"] == "c4.curly_bracket"
    assert (row["text"], row["dedup_digest"], row["kept"]) == (None, None, False)
    assert row["fineweb_list_ratio"] is not None
    assert row["gopher_repetition_top_2_gram"] is not None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "language.not_identified"),
        (GERMAN, "language.not_wanted"),
        ("\n".join(PARAGRAPHS[:2]), "gopher_quality.short_doc"),
        ("\n\n".join(PARAGRAPHS * 3), "gopher_repetition.dup_para_frac"),
        (GOOD.replace(". ", ", ").replace(".", " and so on"), "fineweb.line_punct_ratio"),
        (GOOD + "\nLorem ipsum is a text for designers of pages.", "c4.lorem_ipsum"),
    ],
    ids=["empty", "german", "short", "repeated", "no-marks", "lorem"],
)
def test_the_first_failing_rule_gives_the_reason(stage, text, reason):
    assert stage.process(_table([text])).removed["drop_reason"].to_pylist() == [reason]


def test_documents_in_other_languages_meet_the_rules_for_every_language_only():
    stage = CleanStage(RulesConfig(languages=None))
    rows = _rows(stage.process(_table([GERMAN, "\n".join([GERMAN] * 3), GOOD])))
    assert rows["d0"]["kept"]
    assert rows["d0"]["text"] == GERMAN
    assert rows["d0"]["gopher_quality_n_words"] is None
    assert rows["d0"]["fineweb_char_dup_ratio"] == 0.0
    assert rows["d1"]["drop_reason"] == "gopher_repetition.dup_line_frac"
    assert rows["d2"]["gopher_quality_n_words"] is not None


def test_english_rules_can_be_applied_to_all_languages_as_the_reference_does():
    rows = _rows(CleanStage(RulesConfig(languages=None, english_rules="all")).process(_table([GERMAN])))
    assert rows["d0"]["drop_reason"] == "gopher_quality.too_few_stop_words"


def test_url_rules_come_first_and_leave_the_other_measures(tmp_path):
    path = tmp_path / "domains"
    path.write_text("bad.example.com\nevil.org\n")
    stage = CleanStage(RulesConfig.load({"url_domains": str(path)}))
    urls = ["https://www.evil.org/a", "https://bad.example.com/", "https://example.com/"]
    rows = _rows(stage.process(_table([GOOD] * 3, urls)))
    assert [rows[f"d{i}"]["drop_reason"] for i in range(3)] == ["url.domain", "url.host", None]
    assert rows["d0"]["gopher_quality_n_words"] == rows["d2"]["gopher_quality_n_words"]


def test_bad_words_remove_documents_under_the_c4_preset(tmp_path):
    path = tmp_path / "en"
    path.write_text("weir\n")
    config = RulesConfig.load({"preset": "c4", "bad_words": {"en": str(path)}})
    assert CleanStage(config).process(_table([GOOD])).removed["drop_reason"].to_pylist() == ["c4.bad_words"]
    assert CleanStage(RulesConfig(preset="c4")).process(_table([GOOD])).kept.num_rows == 1


def test_a_rule_that_raises_costs_its_document_only(monkeypatch, stage):
    broken = CleanStage(RulesConfig(engine="python"))
    broken.setup()
    real = broken._segmenter.words

    def words(text):
        if "explode" in text:
            raise ValueError("tokenizer failed")
        return real(text)

    monkeypatch.setattr(broken._segmenter, "words", words)
    output = broken.process(_table([GOOD, GOOD + " explode"]))
    assert output.kept["doc_id"].to_pylist() == ["d0"]
    row = output.removed.to_pylist()[0]
    assert row["drop_reason"] == "error.gopher_repetition"
    assert row["gopher_repetition_dup_line_frac"] is not None
    assert output.metrics["n_errors"] == 1


BOUNDARY = {
    "empty": "",
    "one": "a",
    "spaces": " \n\t ",
    "nul": "\x00" * 50 + "a b c.\x00",
    "rtl": "\u0645\u0631\u062d\u0628\u0627 \u0628\u0643\u0645. " * 60,
    "cjk": "\u65e5\u672c\u8a9e\u306e\u6587\u7ae0\u3067\u3059\u3002" * 200,
    "controls": "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029" * 20,
    "marks": ".!?" * 400,
    "combining": "e\u0301\u0302\u0303" * 300,
    "emoji": "\U0001f468\u200d\U0001f469\u200d\U0001f467" * 100,
    "replacement": "\ufffd \ufeff" * 100,
    "newlines": "\n" * 5000,
    "surrogate": "a \ud800 lone surrogate stands here.\n" * 10,
}


@pytest.mark.parametrize("text", BOUNDARY.values(), ids=BOUNDARY.keys())
@pytest.mark.parametrize("preset", ["fineweb", "c4", "gopher"])
def test_boundary_texts_never_raise(text, preset):
    document = _stages()[preset].measure(text, "")
    assert document.error is None
    assert set(document.measures) == set(RULE_MEASURES)


_MADE = {}


def _stages():
    if not _MADE:
        for preset in ("fineweb", "c4", "gopher"):
            _MADE[preset] = CleanStage(RulesConfig(preset=preset, english_rules="all"))
            _MADE[preset].setup()
    return _MADE


@pytest.mark.slow
@pytest.mark.parametrize(
    "text", ["a" * 10_000_000, ("word of it. " * 850_000)[:10_000_000]], ids=["one-word", "one-line"]
)
def test_a_line_of_ten_megabytes_is_measured(stage, text):
    output = stage.process(_table([text]))
    assert not output.removed["drop_reason"][0].as_py().startswith("error.")


TEXTS = st.lists(
    st.one_of(
        st.text(max_size=200),
        st.lists(st.sampled_from([*PARAGRAPHS, "", "{ a b c.", "use javascript now.", "- x", "..."]), max_size=12).map(
            "\n".join
        ),
    ),
    min_size=1,
    max_size=6,
)


@given(TEXTS)
@settings(max_examples=60, deadline=None)
def test_rows_depend_on_nothing_but_their_document(stage, texts):
    texts = [t.encode("utf-8", "replace").decode() for t in texts]
    together = _rows(stage.process(_table(texts)))
    backwards = _table(texts).take(list(range(len(texts)))[::-1])
    assert _rows(stage.process(backwards)) == together
    alone = {}
    for i in range(len(texts)):
        alone |= _rows(stage.process(_table(texts).slice(i, 1)))
    assert alone == together


THRESHOLDS = (
    {},
    {"gopher_repetition.top_2_gram": None, "gopher_quality.short_doc": 10, "fineweb.char_dup_ratio": 0.5},
    {"c4.too_few_sentences": None, "c4.lorem_ipsum": None, "c4.curly_bracket": None, "gopher_quality.short_doc": None},
)


@given(TEXTS)
@settings(max_examples=40, deadline=None)
def test_other_thresholds_need_no_text_only_the_stored_measures(deciding, texts):
    table = _table([t.encode("utf-8", "replace").decode() for t in texts])
    stored = _rows(deciding[0].process(table))
    for stage in deciding:
        for doc_id, row in _rows(stage.process(table)).items():
            assert decide(row, stage.config) == (row["kept"], row["drop_reason"])
            assert decide(stored[doc_id], stage.config) == (row["kept"], row["drop_reason"])


@pytest.fixture(scope="module")
def deciding():
    free = {"english_rules": "all", "languages": None, "min_language_score": None}
    stages = [CleanStage(RulesConfig(overrides=thresholds, **free)) for thresholds in THRESHOLDS]
    for made in stages:
        made.setup()
    return stages
