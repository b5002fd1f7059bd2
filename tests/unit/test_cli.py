"""The command line: results on stdout, messages on stderr that name the value, and exit codes 0, 1 and 2."""

import gzip
import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from corpusmill.cli import main

PARAGRAPH = (
    "The museum beside the river opened again in spring after three years of repairs. Volunteers had carried the "
    "paintings out by hand when the water came, and most of them could be saved. Visitors now enter through the old "
    "garden, where a new path of stone leads past the orchard to the hall. The director says that the roof was the "
    "hardest part, because nobody had drawn a plan of it. On Sundays children may paint in the yard. "
)


@pytest.fixture
def recipes(repository, monkeypatch):
    monkeypatch.setenv("CORPUSMILL_RECIPES", str(repository / "dags" / "recipes"))


@pytest.fixture
def run(capsys):
    """Runs a command; returns its exit code, the lines of stdout and all of stderr."""

    def call(*arguments):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse
            code = stop.code
        captured = capsys.readouterr()
        return code, captured.out.splitlines(), captured.err

    return call


def json_lines(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_warc(path, bodies):
    with path.open("wb") as file:
        writer = WARCWriter(file, gzip=True)
        for number, body in enumerate(bodies):
            head = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1")
            url = f"https://museum.example/{number}"
            record = writer.create_warc_record(url, "response", payload=io.BytesIO(body.encode()), http_headers=head)
            writer.write_record(record)
    return path


# -- run


def test_run_ingest_writes_the_pages_of_a_warc_and_counts_what_it_refused(tmp_path, run):
    pages = [f"<html><body><h1>Museum {i}</h1><p>{PARAGRAPH}</p></body></html>" for i in range(2)]
    warc = write_warc(tmp_path / "two.warc.gz", [*pages, ""])
    code, out, _ = run("run", "ingest", "--input", warc, "--output", tmp_path / "out")
    report = json.loads(out[-1])
    assert code == 0
    assert (report["documents_kept"], report["quarantined"]) == (2, {"ingest.no_text": 1})
    assert report == json.loads((tmp_path / "out" / "report.json").read_text())
    kept = pq.read_table(tmp_path / "out" / "kept.parquet").to_pylist()
    assert [row["url"] for row in kept] == ["https://museum.example/0", "https://museum.example/1"]
    assert all("carried the paintings out by hand" in row["text"] for row in kept)
    (fault,) = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert (fault["reason"], fault["stage"]) == ("ingest.no_text", "ingest")


def test_run_clean_keeps_and_removes_documents_of_json_lines(tmp_path, run):
    source = json_lines(tmp_path / "d.jsonl", {"doc_id": "good", "text": PARAGRAPH}, {"doc_id": "bad", "text": "short"})
    config = tmp_path / "c.yaml"
    config.write_text("preset: gopher\nlanguages: null\nmin_language_score: null\n")
    code, out, err = run("run", "clean", "--input", source, "--output", tmp_path / "out", "--config", config)
    report = json.loads(out[-1])
    assert code == 0
    assert len(out) == 1
    assert "2 of 2 documents" in err
    assert report["removed"] == {"gopher_quality.short_doc": 1}
    kept = pq.read_table(tmp_path / "out" / "kept.parquet").to_pylist()
    removed = pq.read_table(tmp_path / "out" / "removed.parquet").to_pylist()
    assert [(row["doc_id"], row["text"]) for row in kept] == [("good", PARAGRAPH)]
    assert [(row["doc_id"], row["drop_reason"]) for row in removed] == [("bad", "gopher_quality.short_doc")]


def clean(run, source, tmp_path):
    config = tmp_path / "none.yaml"
    config.write_text("{preset: none, languages: null, min_language_score: null, pii: false}")
    return run("run", "clean", "--input", source, "--output", tmp_path / "out", "--config", config)


def kept_texts(tmp_path):
    return pq.read_table(tmp_path / "out" / "kept.parquet")["text"].to_pylist()


def test_texts_that_look_like_dates_or_are_longer_than_a_megabyte_stay_as_they_are(tmp_path, run):
    texts = ["2024-01-01", "2024-01-02T03:04:05Z", "word " * 400_000]
    code, _, err = clean(run, json_lines(tmp_path / "d.jsonl", *({"text": text} for text in texts)), tmp_path)
    assert code == 0, err
    assert kept_texts(tmp_path) == texts


def test_lone_surrogates_numbers_as_ids_and_columns_that_no_stage_reads_are_accepted(tmp_path, run):
    rows = ({"text": "a\ud800b", "doc_id": 7, "tags": ["x"]}, {"text": "c", "doc_id": 8, "tags": {"y": 1}})
    path = tmp_path / "d.jsonl.gz"
    path.write_bytes(gzip.compress("\n\n".join(json.dumps(row) for row in rows).encode()))
    assert clean(run, path, tmp_path)[0] == 0
    assert kept_texts(tmp_path) == ["a\ufffdb", "c"]
    assert pq.read_table(tmp_path / "out" / "kept.parquet")["doc_id"].to_pylist() == ["7", "8"]


def test_a_row_without_a_text_is_quarantined_and_the_others_are_processed(tmp_path, run):
    source = json_lines(tmp_path / "d.jsonl", {"doc_id": "x", "text": None}, {"doc_id": "y", "text": PARAGRAPH})
    code, out, err = clean(run, source, tmp_path)
    assert code == 0, err
    assert json.loads(out[-1])["quarantined"] == {"error.null_text": 1}
    (fault,) = pq.read_table(tmp_path / "out" / "quarantine.parquet").to_pylist()
    assert fault["where"] == "x"
    assert kept_texts(tmp_path) == [PARAGRAPH]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("empty.jsonl", b"", "holds no document"),
        ("broken.jsonl", b'{"text": "a"}\n{bad\n', "after line 1"),
        ("list.jsonl", b'["a"]\n', "found list, expected an object"),
        ("number.jsonl", b'{"text": 5}\n', "text=5, expected a string"),
        ("other.jsonl", b'{"body": "a"}\n', "expected one named 'text'"),
        ("latin.jsonl", b'{"text": "\xe9"}\n', "utf-8"),
        ("plain.jsonl.gz", b'{"text": "a"}\n', "gzip"),
        ("cut.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 9)[:-9], "expected one JSON object"),
        ("broken.parquet", b"nothing", "is not a Parquet file"),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_damaged_input_fails_with_its_name_and_leaves_no_output(tmp_path, run, name, content, said):
    (tmp_path / name).write_bytes(content)
    code, out, err = clean(run, tmp_path / name, tmp_path)
    assert (code, out) == (1, [])
    assert name in err
    assert said in err
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_a_parquet_file_whose_text_is_no_string_fails_with_its_name(tmp_path, run):
    pq.write_table(pa.table({"text": [["a"]]}), tmp_path / "list.parquet")
    code, _, err = clean(run, tmp_path / "list.parquet", tmp_path)
    assert code == 1
    assert "list.parquet" in err


@pytest.mark.slow
def test_run_score_writes_sums_under_the_bundled_reference_model(tmp_path, run):
    source = json_lines(tmp_path / "d.jsonl", {"text": PARAGRAPH}, {"text": PARAGRAPH[:200]}, {"text": ""})
    config = tmp_path / "c.yaml"
    config.write_text("model: bundled:reference_lm\ndevice: cpu\n")
    code, out, err = run("run", "score", "--input", source, "--output", tmp_path / "out", "--config", config)
    assert code == 0, err
    report = json.loads(out[-1])
    rows = pq.read_table(tmp_path / "out" / "kept.parquet").to_pylist()
    assert [row["n_bytes"] for row in rows] == [len(PARAGRAPH), 200, 0]
    assert [row["skipped_reason"] for row in rows] == [None, None, "score.too_few_tokens"]
    assert all(0 < row["nll_sum"] / row["n_scored"] < 12 for row in rows[:2])
    assert report["metrics"]["n_scored_tokens"] == sum(row["n_scored"] for row in rows)


# -- execute


@pytest.mark.parametrize("mode", ["strict", "compat"])
def test_execute_removes_lines_and_leaves_carriage_returns_alone(tmp_path, run, mode):
    text, program = tmp_path / "t.txt", tmp_path / "p.txt"
    text.write_bytes(f"Home | Log in\r\n{PARAGRAPH}\r\nCaf\u00e9".encode())
    program.write_text("remove_lines(start=0, end=0)")
    code, out, _ = run("execute", "--text", text, "--program", program, "--mode", mode)
    result = json.loads(out[-1])
    assert code == 0
    assert (result["text"], result["reason"]) == (f"{PARAGRAPH}\r\nCaf\u00e9", "edited")
    assert result["operations"][0]["op"] == "remove_lines"
    assert out[-1].isascii()


def test_execute_is_strict_by_default_where_the_modes_differ(tmp_path, run):
    text, program = tmp_path / "t.txt", tmp_path / "p.txt"
    text.write_text(PARAGRAPH)
    program.write_text('normalize(source_str=".", target_str="")')  # strict refuses a source of one character
    files = ("--text", text, "--program", program)
    texts = [json.loads(run("execute", *files, *mode)[1][-1])["text"] for mode in ((), ("--mode", "compat"))]
    assert texts == [PARAGRAPH, PARAGRAPH.replace(".", "")]


# -- the lakehouse


def test_init_makes_tables_that_files_and_explain_read(home, recipes, run):
    assert run("init", "demo")[:2] == (0, [])
    assert (home / "catalog.db").is_file()
    assert run("init", "demo")[0] == 0
    assert run("files", "demo") == (0, [], "")
    code, out, err = run("explain", "no-such-id")
    assert code == 1
    found = json.loads("\n".join(out))
    assert (found["doc_id"], found["documents"], found["published"]) == ("no-such-id", [], False)
    assert "'no-such-id'" in err


def test_commands_on_an_empty_home_say_how_to_create_it(home, run):
    for arguments in (("files", "demo"), ("explain", "x")):
        code, out, err = run(*arguments)
        assert (code, out) == (1, [])
        assert "corpusmill init" in err
        assert str(home) in err


# -- refiners


def labelled_pages(path, first, n):
    rows = []
    for i in range(first, first + n):
        lines = ["Home", "Log in", "Contact", f"Room {i}. {PARAGRAPH}", f"Tower {i}. {PARAGRAPH}", "Share this page"]
        rows.append({"domain": f"d{i}.example", "tier": "human", "lines": lines, "remove": [0, 1, 2, 5], "unsure": []})
    return json_lines(path, *rows)


@pytest.mark.slow
def test_build_refiner_trains_a_folder_that_evaluate_refiner_measures_alike(tmp_path, run, monkeypatch):
    train, dev = labelled_pages(tmp_path / "train.jsonl", 0, 8), labelled_pages(tmp_path / "dev.jsonl", 100, 4)
    monkeypatch.chdir(tmp_path)
    built = run("build-refiner", "--kind", "labeller", "--train", train, "--dev", dev, "--steps", "2", "--out", "m")
    assert built[0] == 0, built[2]
    quality = json.loads(built[1][-1])
    assert json.loads(Path("m/config.json").read_text())["quality"] == quality
    measured = run("evaluate-refiner", "m", dev)
    assert measured[0] == 0, measured[2]
    assert json.loads(measured[1][-1])["keep_f1"] == quality["full_text"]["keep_f1"]


@pytest.mark.slow
def test_evaluate_refiner_measures_the_bundled_labeller(tmp_path, run):
    code, out, err = run("evaluate-refiner", "bundled:line_labeller", labelled_pages(tmp_path / "p.jsonl", 0, 4))
    quality = json.loads(out[-1])
    assert code == 0, err
    assert quality["validity"] == 1.0
    assert 0.5 < quality["keep_f1"] <= 1  # 0.5 if it removed nothing: 2 of 6 lines are text


# -- wrong use


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Names in the working folder that the cases below use."""
    monkeypatch.chdir(tmp_path)
    json_lines(tmp_path / "d.jsonl", {"text": PARAGRAPH})
    contents = {
        "broken.yaml": "preset: [fineweb",
        "list.yaml": "- 1\n",
        "unknown.yaml": "presset: fineweb\n",
        "bounds.yaml": "min_language_score: 7\n",
        "text.txt": "hello",
    }
    for name, content in contents.items():
        (tmp_path / name).write_text(content)


ON_FILE = ("--input", "d.jsonl", "--output", "out")


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        ((), 2, "COMMAND"),
        (("shine",), 2, "'shine'"),
        (("run", "polish", *ON_FILE), 2, "'polish'"),
        (("run", "clean", "--input", "d.jsonl"), 2, "--output"),
        (("run", "clean", "--input", "absent.jsonl", "--output", "out"), 1, "'absent.jsonl'"),
        (("run", "clean", "--input", "text.txt", "--output", "out"), 2, "'text.txt'"),
        (("run", "clean", "--input", "d.jsonl", "--output", "text.txt"), 1, "'text.txt'"),
        (("run", "ingest", "--input", "text.txt", "--output", "out"), 1, "WARC"),
        (("run", "clean", *ON_FILE, "--config", "absent.yaml"), 2, "'absent.yaml'"),
        (("run", "clean", *ON_FILE, "--config", "broken.yaml"), 2, "'broken.yaml'"),
        (("run", "clean", *ON_FILE, "--config", "list.yaml"), 2, "'list.yaml'"),
        (("run", "clean", *ON_FILE, "--config", "unknown.yaml"), 2, "presset"),
        (("run", "clean", *ON_FILE, "--config", "bounds.yaml"), 2, "min_language_score=7"),
        (("init", "nowhere"), 2, "nowhere.yaml"),
        (("refresh", "nowhere", "X"), 2, "nowhere.yaml"),
        (("refresh", "demo", "NO-CRAWL"), 2, "'NO-CRAWL'"),
        (("refresh", "broken.yaml", "X"), 2, "'broken.yaml'"),
        (("execute", "--text", "absent.txt", "--program", "text.txt"), 2, "'absent.txt'"),
        (("execute", "--text", "text.txt", "--program", "text.txt", "--mode", "lax"), 2, "'lax'"),
        (("evaluate-refiner", "bundled:nothing", "d.jsonl"), 2, "'bundled:nothing'"),
        (("evaluate-refiner", "./models/nothing", "d.jsonl"), 2, "./models/nothing"),
        (("evaluate-refiner", "bundled:line_labeller", "absent.jsonl"), 1, "absent.jsonl"),
        (("evaluate-refiner", "bundled:line_labeller", "d.jsonl"), 1, "d.jsonl line 1"),
        (
            (
                "build-refiner",
                "--kind",
                "labeller",
                "--train",
                "d.jsonl",
                "--dev",
                "d.jsonl",
                "--steps",
                "0",
                "--out",
                "m",
            ),
            2,
            "steps=0",
        ),
        (("build-refiner", "--kind", "labeller", "--train", "d.jsonl"), 2, "--dev, --out"),
        (("build-refiner", "--recipe", "absent.yaml"), 2, "absent.yaml"),
        (("build-refiner", "--recipe", "r.yaml", "--steps", "3", "--out", "m"), 2, "--steps, --out beside --recipe"),
        (("verify-refiner", "./absent"), 1, "'./absent' does not exist"),
        (("verify-refiner", "files"), 2, "--stage documents or chunks"),
        (("evaluate-refiner", "bundled:line_labeller", "text.txt"), 1, "text.txt line 1"),
        (("evaluate-refiner", "registered:nothing", "d.jsonl"), 1, "corpusmill init"),
        (("replay", "demo", "--crawl", "X"), 1, "corpusmill init"),
        (("replay", "broken.yaml", "--crawl", "X"), 2, "'broken.yaml'"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, tuple) else "",
)
def test_wrong_use_ends_with_a_message_that_names_the_value(home, recipes, files, run, arguments, code, named):
    found, out, err = run(*arguments)
    assert (found, out) == (code, [])
    assert named in err
    assert "Traceback" not in err
