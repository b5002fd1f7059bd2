"""Repeated lines through whole runs on small crawls: what is removed, in any order of crawls, cut and retry."""

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from corpusmill.dedup.text_units import Span, unit_digest, unit_spans, without_units
from corpusmill.demo.page_chrome import Page
from corpusmill.demo.warc_writing import Place, gzip_member, page_records
from corpusmill.lakehouse.catalog import NotInitialisedError
from corpusmill.recipe import Recipe, parse_recipe
from corpusmill.runner import chain, deduplicate
from corpusmill.runner.committed_plan import committed_plan
from corpusmill.runner.dry_run import dry_run
from corpusmill.runner.examples import refinement_examples
from corpusmill.runner.explain import explain
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.plan import load_plan
from corpusmill.runner.refresh import refresh
from corpusmill.runner.replay import replay
from corpusmill.schema import text_digest

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CRAWLS = ("T-2024-10", "T-2024-20", "T-2024-30")
OLD, MIDDLE, NEW = CRAWLS
NOUNS = ("river", "water", "mountain", "valley", "weather", "station", "field", "team", "summer", "winter", "farmer")
VERBS = ("measured", "carried", "painted", "repaired", "followed", "counted", "lifted", "opened", "crossed", "planted")
LETTER = "Please subscribe to our free weekly news letter about rivers and bridges."
TERMS = "By reading this page you accept the terms of the village museum and its harbour."
SHORT = "Read more here."


def sentences(seed: int, n: int = 6) -> list[str]:
    rng = random.Random(seed)
    found = []
    for _ in range(n):
        a, b, c, d = rng.sample(NOUNS, 4)
        found.append(
            f"The {a} of the {b} {rng.choice(VERBS)} the {c} {rng.randrange(10**6)} times before the {d} came."
        )
    return found


def write_crawl(base: Path, crawl: str, pages: dict[str, list[str]]) -> None:
    """Writes a crawl of two files; a page is its paragraphs."""
    names = []
    for number in range(2):
        name = f"crawl-data/{crawl}/segments/1.0/warc/{crawl}-{number:05d}.warc.gz"
        place = Place(crawl, Path(name).name, "2024-02-20T00:00:00Z")
        members = []
        for url in list(pages)[number::2]:
            paragraphs = "".join(f"<p>{text}</p>" for text in pages[url])
            body = (
                f"<html><head><title>x</title></head><body><main><article>{paragraphs}</article></main></body></html>"
            )
            members += page_records(place, Page(url, body.encode()), place.date)
        target = base / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"".join(gzip_member(member) for member in members))
        names.append(name)
    (base / "crawl-data" / crawl / "warc.paths.gz").write_bytes(gzip.compress("\n".join(names).encode() + b"\n"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three crawls of eight pages with the same letter on each; three texts stand in every crawl."""
    folder = tmp_path_factory.mktemp("crawls")
    for position, crawl in enumerate(CRAWLS):
        pages = {}
        for n in range(8):
            seed = n if n < 3 else 100 * position + n
            pages[f"https://a.example/{crawl}/{n}"] = [*sentences(seed), LETTER, SHORT, f"{TERMS} {n % 2}"]
        if crawl == OLD:
            pages[f"https://a.example/{crawl}/thin"] = [LETTER, f"{TERMS} 0", "Nothing else than this is here to read."]
        write_crawl(folder, crawl, pages)
    (folder / "collinfo.json").write_text(json.dumps([{"id": crawl} for crawl in reversed(CRAWLS)]))
    return folder


@pytest.fixture
def recipe(base: Path) -> Callable[..., Recipe]:
    def make(name: str, **changes: Any) -> Recipe:
        values: dict[str, Any] = {
            "name": name,
            "source": {"base": str(base)},
            "shards": {"max_shards": 2},
            "rules": {"preset": "none", "languages": None},
            "deduplication": {"lines": {}},
        }
        return parse_recipe({**values, **changes})

    return make


def quiet(line: str) -> None:
    assert line


def rows_of(recipe: str, table: str, crawl: str | None = None) -> list[dict[str, Any]]:
    at = None if crawl is None else {"crawl": crawl}
    rows = open_lakehouse().table(f"{recipe}.{table}").scan(at).to_pylist()
    return sorted(rows, key=lambda row: (row["crawl"], row["doc_id"]))


def texts_of(recipe: str) -> list[tuple[str, str, str]]:
    return [(row["crawl"], row["doc_id"], row["text"]) for row in rows_of(recipe, "corpus")]


def to_deduplication(made: Recipe, crawl: str) -> dict[str, Any]:
    chain.initialise([made.name])
    planned = chain.plan(made.model_dump(mode="json"), crawl, "run")
    for stage in ("ingest", "clean"):
        for shard in planned["shards"]:
            chain.run_shard(planned["plan"], stage, shard)
        chain.commit(planned["plan"], stage)
    return planned


def test_each_line_stays_once_in_a_crawl_and_every_removal_is_told(home, recipe):
    refresh(recipe("told"), OLD, None, quiet)
    texts = {doc_id: text for _, doc_id, text in texts_of("told")}
    assert len(texts) == 8
    for line in (LETTER, f"{TERMS} 0", f"{TERMS} 1"):
        assert sum(line in text for text in texts.values()) == 1
    assert all(SHORT in text for text in texts.values()), "it has three words"
    whole = {row["doc_id"]: row for row in rows_of("told", "documents")}
    removed = rows_of("told", "duplicate_lines")
    thin = [row for row in removed if whole[row["doc_id"]]["url"].endswith("thin")]
    assert [(row["kept"], row["reason"]) for row in thin] == [(False, "deduplicate.lines_too_little_left")]
    for row in removed:
        text = whole[row["doc_id"]]["text"]
        spans = [Span(unit["start"], unit["end"]) for unit in row["removed"]]
        assert {text[a:b] for a, b in spans} <= {LETTER, f"{TERMS} 0", f"{TERMS} 1"}
        assert not row["kept"] or texts[row["doc_id"]] == without_units(text, spans)
    first = min(doc_id for doc_id in texts)
    shown = explain(open_lakehouse(), "told", next(d for d in sorted(texts) if d != first), OLD)
    unit = shown["duplicate_lines"][0]["removed"][0]
    assert (unit["text"], unit["duplicate_of"]) == (LETTER, first)
    assert LETTER in whole[first]["text"], "the matched document holds it"


def test_the_report_counts_what_lines_cost(home, recipe):
    planned = to_deduplication(recipe("counted"), OLD)
    report = chain.deduplicate(planned["plan"])
    assert (report["documents_in"], report["documents_kept"]) == (9, 8)
    assert report["removed"] == {"deduplicate.lines_too_little_left": 1}
    rows = [row for row in rows_of("counted", "duplicate_lines") if row["kept"]]
    assert report["metrics"] == {
        "documents_shortened": len(rows),
        "lines_removed": sum(row["n_units_removed"] for row in rows),
    }
    assert len(rows) == 7, "all but the first"


def test_other_orders_of_crawls_and_another_cut_give_the_same_texts(home, recipe):
    found = {}
    for number, order in enumerate((CRAWLS, (NEW, MIDDLE, OLD), (NEW, OLD, MIDDLE))):
        for crawl in order:
            refresh(recipe(f"order{number}", shards={"max_shards": 1 + number % 2}), crawl, None, quiet)
        found[order] = texts_of(f"order{number}")
    assert all(texts == found[CRAWLS] for texts in found.values())
    assert len(found[CRAWLS]) == 8 + 5 + 5
    lines = [rows_of(f"order{number}", "duplicate_lines") for number in range(3)]
    assert all(rows == lines[0] for rows in lines)
    lake = open_lakehouse()
    before = {t: lake.table(f"order2.{t}").snapshot_id() for t in ("duplicate_lines", "duplicates", "corpus")}
    refresh(recipe("order2"), NEW, None, quiet)  # it came first and was assembled again twice since
    assert {t: open_lakehouse().table(f"order2.{t}").snapshot_id() for t in before} == before


def test_models_read_the_shortened_text_and_stored_programs_are_replayed_on_it(home, recipe, tmp_path):
    folder = tmp_path / "scripted"
    folder.mkdir()
    (folder / "script.json").write_text(json.dumps({"default": "remove_lines(start=1, end=1)"}))
    scripted = {"backend": "scripted", "model": str(folder)}
    refresh(recipe("models", refine_chunks=scripted), OLD, None, quiet)
    lost = {row["doc_id"]: row for row in rows_of("models", "duplicate_lines")}
    whole = {row["doc_id"]: row["text"] for row in rows_of("models", "documents")}
    refined = rows_of("models", "chunk_refinements")
    assert len(refined) == 8
    for row in refined:
        units = lost.get(row["doc_id"], {"removed": []})["removed"]
        read = without_units(whole[row["doc_id"]], [Span(unit["start"], unit["end"]) for unit in units])
        assert row["text_digest"] == text_digest(read)
        assert row["n_chars_before"] == len(read)
    outcome = replay(open_lakehouse(), "models", OLD)
    assert (outcome["n_documents"], outcome["n_equal"]) == (8, 8)
    scored = {"score": {"model": "bundled:reference_lm", "context": 64}}
    forecast = dry_run(open_lakehouse(), recipe("models", refine_chunks=scripted, **scored), OLD, progress=quiet)
    stages = {stage["stage"]: (stage["n_most"], stage["n_computed"]) for stage in forecast["stages"]}
    assert stages == {"clean": (9, 0), "refine_chunks": (8, 0), "score": (8, 8)}, "the thin page is read by no model"
    plan = committed_plan(open_lakehouse(), "models", OLD, "refine_chunks")
    shown = refinement_examples(open_lakehouse(), plan, 8)
    texts = {row["doc_id"]: row["text_digest"] for row in refined}
    assert shown
    assert all(text_digest(example["before"]) == texts[example["doc_id"]] for example in shown)


def test_a_run_that_dies_after_the_lines_finds_them(home, recipe, monkeypatch):
    planned = to_deduplication(recipe("killed"), OLD)
    with monkeypatch.context() as patched:
        patched.setattr(deduplicate, "commit_rows", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            chain.deduplicate(planned["plan"])
    stored = open_lakehouse().table("killed.duplicate_lines").snapshot_id()
    assert stored is not None
    report = chain.deduplicate(planned["plan"])
    assert report["documents_kept"] == 8
    assert open_lakehouse().table("killed.duplicate_lines").snapshot_id() == stored
    assert chain.deduplicate(planned["plan"])["skipped"]


def test_lines_that_another_run_replaced_are_made_again_though_the_duplicates_stand(home, recipe, monkeypatch):
    first = to_deduplication(recipe("back"), OLD)
    chain.deduplicate(first["plan"])
    stored = rows_of("back", "duplicate_lines")
    other = to_deduplication(recipe("back", deduplication={"lines": {"unit": "paragraph", "min_words": 3}}), OLD)
    with monkeypatch.context() as patched:
        patched.setattr(deduplicate, "commit_rows", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            chain.deduplicate(other["plan"])
    assert rows_of("back", "duplicate_lines") != stored
    again = chain.plan(recipe("back").model_dump(mode="json"), OLD, "again")
    assert chain.deduplicate(again["plan"])["skipped"]
    assert rows_of("back", "duplicate_lines") == stored


def test_lines_of_copies_count_where_copies_stay(home, recipe):
    """Which documents hold lines depends on whether exact copies go first, so the key of the lines does as well."""
    alone = recipe("method").model_dump(mode="json")
    plans = [alone, {**alone, "deduplication": {"method": None, "lines": {}}}]
    chain.initialise(["method"])
    keys = [load_plan(open_lakehouse(), chain.plan(made, OLD, "run")["plan"]).keys["lines"] for made in plans]
    assert keys[0] != keys[1]


def test_a_lakehouse_without_the_table_of_lines_explains_and_says_before_any_work_what_is_missing(home, recipe):
    refresh(recipe("older", deduplication={}), OLD, None, quiet)
    lake = open_lakehouse()
    lake.catalog.drop_table("older.duplicate_lines")
    doc_id = rows_of("older", "documents")[0]["doc_id"]
    shown = explain(open_lakehouse(), "older", doc_id, OLD)
    assert shown["published"]
    assert shown["duplicate_lines"] == []
    assert dry_run(open_lakehouse(), recipe("older"), OLD, None, quiet)["changes"]
    with pytest.raises(NotInitialisedError, match="corpusmill init"):
        chain.plan(recipe("older").model_dump(mode="json"), OLD, "run")


def test_lines_of_an_earlier_run_are_marked_and_cut_from_no_other_text(home, recipe):
    refresh(recipe("stale"), OLD, None, quiet)
    doc_id = rows_of("stale", "duplicate_lines")[0]["doc_id"]
    assert explain(open_lakehouse(), "stale", doc_id, OLD)["duplicate_lines"][0]["removed"][0]["text"]
    refresh(
        recipe(
            "stale",
            deduplication={},
            ingest={"max_bytes_html": 10**6},
            rules={"preset": "none", "pii": False, "languages": None},
        ),
        OLD,
        None,
        quiet,
    )
    (row,) = explain(open_lakehouse(), "stale", doc_id, OLD)["duplicate_lines"]
    assert row["of_an_earlier_run"]
    assert "text" not in row["removed"][0]


def test_other_settings_replace_the_lines_and_none_give_the_whole_texts(home, recipe):
    refresh(recipe("settings"), OLD, None, quiet)
    first = texts_of("settings")
    refresh(recipe("settings", deduplication={"lines": {"unit": "paragraph", "min_words": 3}}), OLD, None, quiet)
    assert {row["unit"] for row in rows_of("settings", "duplicate_lines")} == {"paragraph"}
    refresh(recipe("settings", deduplication={}), OLD, None, quiet)
    whole = {row["doc_id"]: row["text"] for row in rows_of("settings", "documents")}
    assert {doc_id: text for _, doc_id, text in texts_of("settings")} == whole
    refresh(recipe("settings"), OLD, None, quiet)
    assert texts_of("settings") == first


def test_on_real_pages_every_line_stays_somewhere_and_matches_what_is_named(home, shared_data, recipe):
    made = recipe("real", source={"base": str(shared_data / "crawls")})
    planned = to_deduplication(made, "CC-DEMO-2024-10")
    report = chain.deduplicate(planned["plan"])
    plan = load_plan(open_lakehouse(), planned["plan"])
    kept = deduplicate.kept_documents(open_lakehouse(), plan)
    copies = kept.group_by("dedup_digest").aggregate([("doc_id", "min")])["doc_id_min"].to_pylist()
    texts = {r["doc_id"]: r["text"] for r in rows_of("real", "documents") if r["doc_id"] in set(copies)}
    rows = rows_of("real", "duplicate_lines")
    gone = {row["doc_id"] for row in rows if not row["kept"]}
    for row in rows:
        for unit in row["removed"]:
            matched = list(unit_spans(texts[unit["duplicate_of"]], "line"))[unit["duplicate_of_unit"]]
            one, two = texts[row["doc_id"]][unit["start"] : unit["end"]], texts[unit["duplicate_of"]][slice(*matched)]
            assert one.split() == two.split()
            assert not row["kept"] or unit["duplicate_of"] not in gone
    left = dict(texts)
    for row in rows:
        spans = [Span(unit["start"], unit["end"]) for unit in row["removed"]]
        left[row["doc_id"]] = without_units(left[row["doc_id"]], spans) if row["kept"] else ""
    assert counts_of(left) == dict.fromkeys(counts_of({d: t for d, t in texts.items() if d not in gone}), 1)
    assert report["metrics"]["lines_removed"] > 100


def counts_of(texts: dict[str, str]) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    for text in texts.values():
        for a, b in unit_spans(text, "line"):
            digest = unit_digest(text[a:b], 5)
            if digest is not None:
                found[digest] = found.get(digest, 0) + 1
    return found


def test_lines_and_near_duplicates_go_together(home, recipe):
    for crawl in (NEW, OLD):
        refresh(recipe("both", deduplication={"lines": {}, "near": {}}), crawl, None, quiet)
    table = pa.Table.from_pylist(rows_of("both", "corpus"))
    assert table.group_by("crawl").aggregate([("doc_id", "count")]).sort_by("crawl")["doc_id_count"].to_pylist() == [
        8,
        5,
    ]
