"""Near duplicates through whole runs on small crawls: any order of crawls, chains, retries, damaged indexes."""

import gzip
import itertools
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import yaml

from corpusmill.dedup.minhash import Signer, band_keys
from corpusmill.dedup.similarity import similarity
from corpusmill.demo.page_chrome import Page
from corpusmill.demo.warc_writing import Place, gzip_member, page_records
from corpusmill.recipe import Recipe, parse_recipe
from corpusmill.runner import chain
from corpusmill.runner.dedup_index import IndexUnusableError, rebuild_index, signer_of
from corpusmill.runner.explain import explain
from corpusmill.runner.open_lakehouse import open_lakehouse
from corpusmill.runner.refresh import refresh
from corpusmill.schema import doc_id_of

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CRAWLS = ("T-2024-10", "T-2024-20", "T-2024-30")
OLD, MIDDLE, NEW = CRAWLS
NOUNS = [
    "river",
    "water",
    "mountain",
    "valley",
    "weather",
    "station",
    "field",
    "team",
    "summer",
    "winter",
    "farmer",
    "market",
    "bread",
    "history",
    "engine",
    "bridge",
    "teacher",
    "garden",
    "library",
    "harvest",
    "letter",
    "village",
    "window",
    "paper",
    "island",
    "museum",
    "signal",
    "forest",
    "ocean",
    "captain",
    "doctor",
]
VERBS = ["measured", "carried", "painted", "repaired", "followed", "counted", "lifted", "opened", "crossed", "planted"]
SENTENCES = 30


def sentences(seed: int) -> list[str]:
    rng = random.Random(seed)
    found = []
    for _ in range(SENTENCES):
        a, b, c, d = rng.sample(NOUNS, 4)
        found.append(
            f"The {a} of the {b} {rng.choice(VERBS)} the {c}, and that {d} was to be with the other {b} again."
        )
    return found


def likeness(one: list[str], two: list[str], signer: Signer) -> tuple[float, bool]:
    """Returns the exact similarity of two texts, and whether they share a band."""
    texts = pa.array([" ".join(one), " ".join(two)], pa.large_string())
    keys = band_keys(signer.signatures(texts))
    return similarity(*texts.to_pylist(), signer.shingler), bool((keys[0] == keys[1]).any())


def chain_of(first_seed: int, signer: Signer) -> list[list[str]]:
    """Returns texts A, B, C of which A and B, and B and C, are near duplicates, and A and C are not."""
    changed = 6
    for seed in range(first_seed, first_seed + 200):
        first, other = sentences(seed), sentences(seed + 1_000_000)
        second = other[:changed] + first[changed:]
        third = second[:-changed] + other[-changed:]
        (ab, ab_met), (bc, bc_met), (ac, _) = (
            likeness(*pair, signer) for pair in ((first, second), (second, third), (first, third))
        )
        if ab_met and bc_met and min(ab, bc) >= 0.5 > ac:
            return [first, second, third]
    raise AssertionError("no chain among 200 seeds")


def write_crawl(base: Path, crawl: str, files: list[Mapping[str, list[str]]]) -> None:
    """Writes a crawl of one WARC for each mapping of URLs to sentences."""
    names = []
    for number, pages in enumerate(files):
        name = f"crawl-data/{crawl}/segments/1.0/warc/{crawl}-{number:05d}.warc.gz"
        place = Place(crawl, Path(name).name, "2024-02-20T00:00:00Z")
        target = base / name
        target.parent.mkdir(parents=True, exist_ok=True)
        members = []
        for url, text in pages.items():
            paragraphs = "".join(f"<p>{sentence}</p>" for sentence in text)
            body = (
                f"<html><head><title>x</title></head><body><main><article>{paragraphs}</article></main></body></html>"
            )
            members += page_records(place, Page(url, body.encode()), place.date)
        target.write_bytes(b"".join(gzip_member(member) for member in members))
        names.append(name)
    (base / "crawl-data" / crawl / "warc.paths.gz").write_bytes(gzip.compress("\n".join(names).encode() + b"\n"))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three overlapping crawls; URLs tell what a page is."""
    folder = tmp_path_factory.mktemp("crawls")
    signer = signer_of(14, 8, 5)
    up, down = chain_of(100, signer), chain_of(5_000, signer)
    same, near = sentences(1), sentences(2)
    nearly = [*near[:-1], sentences(3)[0]]
    pages: dict[str, dict[str, list[str]]] = {crawl: {} for crawl in CRAWLS}
    for position, crawl in enumerate(CRAWLS):
        pages[crawl] = {
            f"https://a.example/{crawl}/own": sentences(10 + position),
            f"https://a.example/{crawl}/same": same,
            f"https://a.example/{crawl}/up": up[position],
            f"https://a.example/{crawl}/down": down[2 - position],
        }
    for crawl, text in ((OLD, near), (NEW, nearly)):
        pages[crawl][f"https://a.example/{crawl}/near"] = text
    inside = sentences(20)
    pages[MIDDLE] |= {
        "https://a.example/inside/1": inside,
        "https://a.example/inside/2": [*inside[1:], sentences(21)[0]],
        "https://a.example/inside/3": inside,
    }
    for crawl, of_crawl in pages.items():
        names = list(of_crawl)
        write_crawl(folder, crawl, [{n: of_crawl[n] for n in names[::2]}, {n: of_crawl[n] for n in names[1::2]}])
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
            "deduplication": {"near": {"threshold": 0.5}},
        }
        return parse_recipe({**values, **changes})

    return make


def quiet(line: str) -> None:
    assert line


def corpus_of(recipe: str) -> pa.Table:
    table = open_lakehouse().table(f"{recipe}.corpus").scan(None)
    return table.sort_by([("crawl", "ascending"), ("doc_id", "ascending")]).drop_columns(["recipe_fingerprint"])


def duplicates_of(recipe: str, crawl: str) -> list[dict[str, Any]]:
    return open_lakehouse().table(f"{recipe}.duplicates").scan({"crawl": crawl}).to_pylist()


def urls_of(recipe: str) -> set[str]:
    return {str(url).removeprefix("https://a.example/") for url in corpus_of(recipe)["url"].to_pylist()}


def snapshots(recipe: str) -> dict[str, int | None]:
    lake = open_lakehouse()
    return {t: lake.table(f"{recipe}.{t}").snapshot_id() for t in ("documents", "minhash", "duplicates", "corpus")}


EXPECTED = {
    *(f"{crawl}/own" for crawl in CRAWLS),
    f"{OLD}/same", f"{OLD}/up", f"{OLD}/down", f"{OLD}/near",
}  # fmt: skip


def test_all_orders_of_three_overlapping_crawls_end_in_the_same_corpus(home, recipe):
    found = {}
    for number, order in enumerate(itertools.permutations(CRAWLS)):
        for crawl in order:
            refresh(recipe(f"order{number}"), crawl, None, quiet)
        found[order] = corpus_of(f"order{number}")
    assert all(table.equals(found[CRAWLS]) for table in found.values())
    published = urls_of("order0")
    assert {u for u in published if not u.startswith("inside/")} == EXPECTED
    assert len([u for u in published if u.startswith("inside/")]) == 1
    before = snapshots("order5")
    refresh(recipe("order5"), NEW, None, quiet)  # it came first and was assembled again twice since
    assert snapshots("order5") == before


def test_every_duplicate_names_what_it_matched_and_what_stands_for_it(home, recipe):
    for crawl in CRAWLS:
        refresh(recipe("named"), crawl, None, quiet)
    corpus = corpus_of("named")
    published = set(zip(corpus["crawl"].to_pylist(), corpus["doc_id"].to_pylist(), strict=True))
    lake = open_lakehouse()
    rows = lake.table("named.documents").scan(None, columns=["crawl", "doc_id", "url", "text"]).to_pylist()
    documents = {(row["crawl"], row["doc_id"]): row for row in rows}
    shingler = signer_of(14, 8, 5).shingler
    found = [row for crawl in CRAWLS for row in duplicates_of("named", crawl)]
    assert {row["kind"] for row in found} == {"exact", "near"}
    for row in found:
        assert (row["cluster_crawl"], row["cluster"]) in published
        assert row["kept"] == ((row["crawl"], row["doc_id"]) in published)
        matched = documents[row["duplicate_of_crawl"], row["duplicate_of"]]["text"]
        exact = similarity(documents[row["crawl"], row["doc_id"]]["text"], matched, shingler)
        assert row["similarity"] == pytest.approx(exact, abs=1e-12)
        assert row["similarity"] >= 0.5
    # of the chain, the last text matched the middle one, which is not published, and the first stands for both
    last = next(row for row in duplicates_of("named", NEW) if documents[NEW, row["doc_id"]]["url"].endswith("/up"))
    assert documents[MIDDLE, last["duplicate_of"]]["url"].endswith("/up")
    assert documents[OLD, last["cluster"]]["url"].endswith("/up")
    shown = explain(lake, "named", last["doc_id"], NEW)
    assert shown["duplicates"][0]["duplicate_of_crawl"] == MIDDLE
    assert shown["duplicates"][0]["cluster_crawl"] == OLD
    assert shown["duplicates"][0]["similarity"] == last["similarity"]
    assert not shown["published"]


def run_until_validated(planned: dict[str, Any]) -> None:
    uri, shards = planned["plan"], planned["shards"]
    for stage in ("ingest", "clean"):
        for shard in shards:
            chain.run_shard(uri, stage, shard)
        chain.commit(uri, stage)
    chain.deduplicate(uri)
    chain.select(uri)
    for shard in shards:
        chain.run_shard(uri, "assemble", shard)
    chain.commit(uri, "assemble")
    chain.validate(uri)


@pytest.mark.parametrize("first", [OLD, NEW])
def test_crawls_published_at_the_same_time_leave_no_near_duplicate(home, recipe, first):
    for crawl in CRAWLS:
        refresh(recipe("one_by_one"), crawl, None, quiet)
    made = recipe("at_once").model_dump(mode="json")
    chain.initialise(["at_once"])
    plans = {crawl: chain.plan(made, crawl, f"run {crawl}") for crawl in CRAWLS}
    for planned in plans.values():
        run_until_validated(planned)
    for crawl in (first, *(c for c in CRAWLS if c != first)):
        chain.publish(plans[crawl]["plan"])
    assert corpus_of("at_once").equals(corpus_of("one_by_one"))


def test_a_match_that_is_not_published_removes_nothing(home, recipe):
    scored = {
        "score": {"model": "bundled:reference_lm", "context": 64},
        "select": {"column": "bits_per_byte", "which": "bottom", "fraction": "1/2"},
    }
    refresh(recipe("chosen", **scored), OLD, None, quiet)
    refresh(recipe("chosen"), NEW, None, quiet)
    lake = open_lakehouse()
    old = {r["doc_id"] for r in corpus_of("chosen").to_pylist() if r["crawl"] == OLD}
    assert 0 < len(old) < lake.table("chosen.documents").count({"crawl": OLD})
    rows = duplicates_of("chosen", NEW)
    assert all(row["cluster"] in old for row in rows if row["cluster_crawl"] == OLD)
    n_new = lake.table("chosen.corpus").count({"crawl": NEW})
    assert n_new == 5 - sum(not row["kept"] for row in rows)
    assert n_new > 1, "the selection left every copy; the test shows nothing"


def test_an_older_crawl_without_an_index_gets_one(home, recipe):
    refresh(recipe("late", deduplication={}), OLD, None, quiet)
    lake = open_lakehouse()
    assert lake.table("late.minhash").count(None) == 0
    refresh(recipe("late"), NEW, None, quiet)
    assert lake.table("late.minhash").count({"crawl": OLD}) == 5 * 14
    assert {row["duplicate_of_crawl"] for row in duplicates_of("late", NEW) if row["kind"] == "near"} == {OLD}


def test_published_texts_stand_in_where_the_stage_tables_have_moved_on(home, recipe):
    refresh(recipe("moved"), OLD, None, quiet)
    refresh(recipe("moved"), NEW, None, quiet)
    impossible = {"name": "my.no", "kind": "metric_between", "subject": "n_documents", "maximum": 0, "why": "a test"}
    other = {"rules": {"preset": "none", "languages": None, "pii": False}}
    for crawl in (OLD, NEW):
        with pytest.raises(Exception, match="Nothing was published"):
            refresh(recipe("moved", validation={"extra_checks": [impossible]}, **other), crawl, None, quiet)
    refresh(recipe("moved"), MIDDLE, None, quiet)
    published = {u for u in urls_of("moved") if not u.startswith("inside/")}
    assert published == EXPECTED


@pytest.mark.parametrize("damage", ["bytes", "gone", "other settings"])
def test_an_index_that_cannot_be_used_is_named_and_can_be_rebuilt(home, recipe, damage):
    refresh(recipe("damaged"), OLD, None, quiet)
    lake = open_lakehouse()
    file = Path(lake.table("damaged.minhash").data_files({"crawl": OLD})[0].removeprefix("file://"))
    if damage == "bytes":
        data = bytearray(file.read_bytes())
        data[200:-400] = bytes(len(data) - 600)
        file.write_bytes(bytes(data))
    elif damage == "gone":
        file.unlink()
    else:
        forged(lake)
    why = "minhash-0-old" if damage == "other settings" else "parquet"
    message = rf"index of {OLD}.*{why}.*corpusmill rebuild-index damaged {OLD}"
    with pytest.raises(IndexUnusableError, match=message):
        refresh(recipe("damaged"), NEW, None, quiet)
    assert corpus_of("damaged").num_rows == 5
    assert rebuild_index(open_lakehouse(), "damaged", OLD) == 5 * 14
    report = refresh(recipe("damaged"), NEW, None, quiet)
    assert report["published"] == 3


def forged(lake: Any) -> None:
    """Puts rows of another version into the index under the key of this one."""
    from corpusmill.lakehouse.commit import swap_files
    from corpusmill.lakehouse.shards import RunToken, ShardWriter

    table, at = lake.table("damaged.minhash"), {"crawl": OLD}
    rows = table.scan(at)
    made_by = pa.array(["minhash-0-old"] * rows.num_rows, pa.large_string())
    rows = rows.set_column(rows.schema.get_field_index("made_by"), rows.schema.field("made_by"), made_by)
    with ShardWriter(table, at, RunToken("damaged", OLD, "forger", 1, "forged"), "whole") as writer:
        writer.write(rows)
        files = writer.close()
    swap_files(lake, "damaged.minhash", at, table.data_files(at), [f.path for f in files])


def test_a_crawl_without_kept_documents_has_an_empty_index(home, recipe, tmp_path):
    for crawl, text in ((OLD, ["short"]), (NEW, sentences(1))):
        write_crawl(tmp_path / "few", crawl, [{"https://a.example/x": text}])
    rules = {"preset": "fineweb", "languages": ["en"]}
    lax = recipe("few", source={"base": str(tmp_path / "few")}, rules=rules)
    chain.initialise(["few"])
    planned = chain.plan(lax.model_dump(mode="json"), OLD, "run")
    for stage in ("ingest", "clean"):
        for shard in planned["shards"]:
            chain.run_shard(planned["plan"], stage, shard)
        chain.commit(planned["plan"], stage)
    report = chain.deduplicate(planned["plan"])
    assert (report["documents_in"], report["documents_kept"]) == (0, 0)
    assert open_lakehouse().table("few.minhash").partition_state({"crawl": OLD}).rows == 0


def test_a_killed_run_gives_the_same_tables_when_run_again(home, recipe, tmp_path):
    for crawl in (OLD, NEW):
        refresh(recipe("whole"), crawl, None, quiet)
    refresh(recipe("killed"), OLD, None, quiet)
    file = tmp_path / "killed.yaml"
    file.write_text(yaml.safe_dump(recipe("killed").model_dump(mode="json")))
    program = (
        "import os, signal, sys\n"
        "from corpusmill.runner import deduplicate\n"
        "real = deduplicate.commit_rows\n"
        "deduplicate.commit_rows = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from corpusmill.cli import main\n"
        "sys.exit(main(sys.argv[1:]))\n"
    )
    command = ["refresh", str(file), NEW]
    dead = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, env=os.environ)
    assert dead.returncode == -signal.SIGKILL
    assert open_lakehouse().table("killed.minhash").count({"crawl": NEW}) == 5 * 14
    refresh(recipe("killed"), NEW, None, quiet)
    assert corpus_of("killed").equals(corpus_of("whole"))
    lake = open_lakehouse()
    for name in ("minhash", "duplicates"):
        tables = [lake.table(f"{r}.{name}").scan(None) for r in ("whole", "killed")]
        by = [(c, "ascending") for c in ("crawl", *tables[0].column_names) if c in ("crawl", "band", "key", "doc_id")]
        assert tables[0].sort_by(by).equals(tables[1].sort_by(by))


def test_labelled_duplicates_of_real_pages_are_found(home, shared_data, recipe):
    rules = {"preset": "none", "languages": None}
    made = recipe("labelled", source={"base": str(shared_data / "crawls")}, rules=rules)
    crawls = ("CC-DEMO-2024-10", "CC-DEMO-2024-33")
    for crawl in crawls:
        refresh(made, crawl, None, quiet)
    rows = {(crawl, row["doc_id"]): row for crawl in crawls for row in duplicates_of("labelled", crawl)}
    assert min(row["similarity"] for row in rows.values()) >= 0.5
    pairs, kinds = labelled_pairs(shared_data / "crawls" / "gold", crawls), {}
    for kind, one, two in pairs:
        clusters = {
            (rows[page]["cluster_crawl"], rows[page]["cluster"]) if page in rows else page for page in (one, two)
        }
        kinds.setdefault(kind, []).append(len(clusters) == 1)
    counts = {kind: (sum(found), len(found)) for kind, found in kinds.items()}
    assert counts == {
        "moved_same_crawl": (12, 12),
        "exact": (21, 21),
        "moved": (20, 20),
        "boilerplate": (21, 21),
        "edited": (20, 20),
    }


def labelled_pairs(gold: Path, crawls: tuple[str, str]) -> list[tuple[str, tuple[str, str], tuple[str, str]]]:
    """Returns (kind, page, original) of each labelled duplicate; pages are (crawl, document id)."""
    pages = {}
    for crawl in crawls:
        with gzip.open(gold / f"{crawl}.pages.jsonl.gz", "rt", encoding="utf-8") as lines:
            pages[crawl] = [json.loads(line) for line in lines]
    ids = {(crawl, page["url"]): doc_id_of(page["record_id"], "", 0) for crawl in crawls for page in pages[crawl]}
    return [
        (page["dup_kind"], (crawl, ids[crawl, page["url"]]), (crawls[0], ids[crawls[0], page["dup_of"]]))
        for crawl in crawls
        for page in pages[crawl]
        if page["dup_of"]
    ]
