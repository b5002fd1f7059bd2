"""Near duplicates between crawls in memory: what matches what, and that no order of crawls changes what is left."""

import functools
import itertools
import random
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pytest

from corpusmill.dedup.candidates import LOWEST, candidate_pairs, pair_ends
from corpusmill.dedup.crawl_order import crawl_order
from corpusmill.dedup.exact import find_exact_duplicates
from corpusmill.dedup.index import MemoryIndex, part_bounds, sign
from corpusmill.dedup.minhash import Signer
from corpusmill.dedup.near import CrawlDocuments, Match, NearDuplicates
from corpusmill.dedup.policy import near_rows, with_near
from corpusmill.dedup.scratch_texts import ScratchTexts
from corpusmill.dedup.similarity import similarity
from corpusmill.errors import DataError
from corpusmill.schema import DUPLICATES

BANDS = 20
SIGNER = Signer(bands=BANDS, rows=3, ngram=2, engine="reference", words=str.split)
WORDS = ["".join(letters) for letters in itertools.product("bcdfg", "aeiou", "klmn")]
Texts = Mapping[str, str]


def strings(values: list[str]) -> pa.Table:
    return pa.chunked_array([values], pa.large_string())


@functools.lru_cache
def signed(texts: tuple[tuple[str, str], ...]) -> tuple[pa.Table, pa.Table, MemoryIndex]:
    ids, values = strings([i for i, _ in texts]), strings([text for _, text in texts])
    return ids, values, MemoryIndex(sign([(ids, values)], SIGNER, BANDS), BANDS, len(texts))


def crawl_documents(crawl: str, texts: Texts, published: set[str]) -> CrawlDocuments:
    ids, values, index = signed(tuple(texts.items()))
    held = np.array([i in published for i in index.doc_ids.to_pylist()], dtype=np.bool_)
    return CrawlDocuments(crawl, index, lambda _: [(ids, values)], lambda: held)


def deduplicate(crawl: str, texts: Texts, older: list[tuple[str, Texts, set[str]]]) -> pa.Table:
    """Returns the crawl's duplicates; older crawls are given with what of them is published."""
    columns = {"doc_id": list(texts), "warc_file": ["f"] * len(texts), "dedup_digest": list(texts.values())}
    documents = pa.table({name: strings(values) for name, values in columns.items()})
    corpora = [
        (name, pa.table({"doc_id": strings([*held]), "dedup_digest": strings([old[i] for i in held])}))
        for name, old, held in older
    ]
    exact = find_exact_duplicates(documents, crawl, corpora)
    first = {text: min(i for i in texts if texts[i] == text) for text in texts.values()}
    own = crawl_documents(crawl, {i: t for i, t in texts.items() if first[t] == i}, set())
    crawls = [*(crawl_documents(*entry) for entry in older), own]
    gone = {row["doc_id"] for row in exact.to_pylist() if not row["kept"]}
    removed = np.array([i in gone for i in own.index.doc_ids.to_pylist()], dtype=np.bool_)
    with NearDuplicates(crawls, BANDS, 0.5, SIGNER.shingler) as near:
        rows = near_rows(crawls, near.find(removed), exact)
    return with_near(exact, rows, documents, crawl)


def publish_in(order: tuple[str, ...], crawls: Mapping[str, Texts], dropped: set[str]) -> dict[str, set[str]]:
    """Publishes crawls one after another; each time the newer ones are assembled again. Returns what is published."""
    corpus: dict[str, set[str]] = {}
    for arriving in order:
        names = sorted({*corpus, arriving}, key=crawl_order)
        for name in names[names.index(arriving) :]:
            older = [(o, crawls[o], corpus[o]) for o in names[: names.index(name)]]
            rows = deduplicate(name, crawls[name], older).to_pylist()
            removed = {row["doc_id"] for row in rows if not row["kept"]}
            corpus[name] = {i for i in crawls[name] if i not in removed and i not in dropped}
    return corpus


def variants(rng: random.Random, n: int) -> list[str]:
    """Returns texts of which neighbours are alike and far ones are not: each is the one before with a part renewed."""
    words = rng.choices(WORDS, k=40)
    found = []
    for _ in range(n):
        start, length = rng.randrange(40), rng.randrange(2, 9)
        words = [*words[:start], *rng.choices(WORDS, k=min(length, 40 - start)), *words[start + length :]]
        found.append(" ".join(words))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_any_order_of_crawls_leaves_the_same_documents(seed):
    rng = random.Random(seed)
    texts = [text for _ in range(4) for text in variants(rng, 7)]
    texts += rng.sample(texts, 6)
    rng.shuffle(texts)
    crawls = {f"C{n}": {f"{n}-{i:02d}": text for i, text in enumerate(texts[n::3])} for n in range(3)}
    dropped = {i for documents in crawls.values() for i in documents if rng.random() < 0.2}
    answers = [publish_in(order, crawls, dropped) for order in itertools.permutations(crawls)]
    assert all(answer == answers[0] for answer in answers)
    left = {i: crawls[name][i] for name, ids in answers[0].items() for i in ids}
    assert 4 <= len(left) < len(texts) - len(dropped)
    assert len(set(left.values())) == len(left), "an exact copy is left"


def test_a_document_goes_with_its_match_where_an_older_document_stands_for_that():
    a, b, c = variants_in_a_chain()
    crawls = {"C1": {"a": a}, "C2": {"b": b}, "C3": {"c": c}}

    def of_c(held: dict[str, set[str]]) -> list[dict]:
        return deduplicate("C3", crawls["C3"], [(n, crawls[n], held[n]) for n in ("C1", "C2")]).to_pylist()

    (direct,) = of_c({"C1": {"a"}, "C2": {"b"}})
    assert (direct["duplicate_of"], direct["cluster"], direct["kept"]) == ("b", "b", False)
    (through,) = of_c({"C1": {"a"}, "C2": set()})
    assert (through["duplicate_of"], through["duplicate_of_crawl"]) == ("b", "C2")
    assert (through["cluster"], through["cluster_crawl"]) == ("a", "C1")
    assert through["similarity"] == pytest.approx(similarity(c, b, SIGNER.shingler))
    assert of_c({"C1": set(), "C2": set()}) == [], "what nothing published stands for removes nothing"


def variants_in_a_chain() -> tuple[str, str, str]:
    rng = random.Random(5)
    words, other = rng.choices(WORDS, k=60), rng.choices(WORDS, k=60)
    texts = [" ".join(part) for part in (words, other[:12] + words[12:], other[:12] + words[12:-12] + other[-12:])]
    values = [similarity(texts[i], texts[j], SIGNER.shingler) for i, j in ((0, 1), (1, 2), (0, 2))]
    assert min(values[:2]) >= 0.5 > values[2]
    return texts[0], texts[1], texts[2]


def test_inside_a_crawl_the_lowest_id_of_a_chain_stands_for_all_and_exact_copies_follow():
    a, b, c = variants_in_a_chain()
    rows = deduplicate("C1", {"1": a, "2": b, "3": c, "4": c, "5": "quite another text of a few words"}, [])
    assert rows.schema == DUPLICATES.schema
    named = [(r["doc_id"], r["kind"], r["duplicate_of"], r["cluster"], r["kept"]) for r in rows.to_pylist()]
    assert named == [
        ("1", "near", "1", "1", True),
        ("2", "near", "1", "1", False),
        ("3", "near", "2", "1", False),
        ("4", "exact", "3", "1", False),
    ]


def test_what_an_older_crawl_removed_stands_for_its_near_duplicates():
    a, b, _ = variants_in_a_chain()
    rows = deduplicate("C2", {"1": a, "2": b}, [("C1", {"x": a}, {"x"})]).to_pylist()
    assert [(r["doc_id"], r["kind"], r["cluster_crawl"], r["cluster"]) for r in rows] == [
        ("1", "exact", "C1", "x"),
        ("2", "near", "C1", "x"),
    ]


def test_a_document_that_stays_is_taken_by_no_chain_through_a_document_that_may_have_gone_for_it():
    a, b, c = variants_in_a_chain()
    other, own = crawl_documents("C2", {"1": c, "2": b}, {"1"}), crawl_documents("C1", {"a": a}, set())
    nothing, everything = np.zeros(1, dtype=np.bool_), np.ones(1, dtype=np.bool_)
    with NearDuplicates([other, own], BANDS, 0.5, SIGNER.shingler) as near:
        assert list(near.find(nothing)) == [0], "through 2, which went for it, to 1"
        assert near.find(nothing, held=everything) == {}
    with NearDuplicates([crawl_documents("C2", {"2": b}, {"2"}), own], BANDS, 0.5, SIGNER.shingler) as near:
        assert list(near.find(nothing, held=everything)) == [0], "what is published takes it all the same"


def test_candidates_that_are_not_alike_are_not_reported():
    rng = random.Random(3)
    half = rng.choices(WORDS, k=15)
    texts = {str(i): " ".join([*half, *rng.choices(WORDS, k=20)]) for i in range(20)}
    own = crawl_documents("C1", texts, set())
    everything = np.ones(len(own.index), dtype=np.bool_)
    n_candidates = len(candidate_pairs(own.index, everything, own.index, BANDS, same=True))
    with NearDuplicates([own], BANDS, 0.5, SIGNER.shingler) as near:
        assert near.find(~everything) == {}
    assert n_candidates > 0, "no pair was compared; the test shows nothing"


def test_of_one_key_the_lowest_ids_are_candidates():
    texts = {f"{i:02d}": "one two three four five six" for i in range(LOWEST + 5)}
    own = crawl_documents("C1", texts, set())
    sources, targets = pair_ends(
        candidate_pairs(own.index, np.ones(len(own.index), dtype=np.bool_), own.index, BANDS, same=True)
    )
    assert set(targets.tolist()) == set(range(LOWEST))
    assert all(target < source for source, target in zip(sources.tolist(), targets.tolist(), strict=True))
    with NearDuplicates([own], BANDS, 0.5, SIGNER.shingler) as near:
        found = near.find(np.zeros(len(own.index), dtype=np.bool_))
    assert found[LOWEST + 4] == Match((0, 0), 1.0, (0, 0))


def test_parts_of_a_band_hold_every_row_once():
    index = crawl_documents("C1", {str(i): f"{WORDS[i]} {WORDS[i + 1]} x" for i in range(90)}, set()).index
    whole = index.part(3, 0, 1)
    for parts in (2, 3, 256):
        cut = [index.part(3, part, parts) for part in range(parts)]
        assert np.concatenate([p.keys for p in cut]).tobytes() == whole.keys.tobytes()
        bounds = [part_bounds(part, parts) for part in range(parts)]
        assert bounds[0][0] is None
        assert bounds[-1][1] is None
        assert all(one[1] == two[0] for one, two in itertools.pairwise(bounds))
        for part, (low, after) in zip(cut, bounds, strict=True):
            assert all((low or b"") <= key.tobytes() < (after or b"\xff" * 17) for key in part.keys)


def test_a_crawl_without_texts_and_texts_without_signature():
    assert deduplicate("C2", {}, [("C1", {"a": "b c d"}, {"a"})]).num_rows == 0
    assert deduplicate("C2", {"x": "one"}, [("C1", {}, set())]).num_rows == 0
    (row,) = deduplicate("C2", {"x": "one"}, [("C1", {"a": "one"}, {"a"})]).to_pylist()
    assert row["kind"] == "exact"


def test_a_text_that_is_missing_is_an_error_that_names_the_document():
    ids = pa.array(["a", "b"], pa.large_string())
    with ScratchTexts() as texts, pytest.raises(DataError, match=r"'b'.*rebuild"):
        texts.add(np.array([0, 1]), ids, [(strings(["a", "z"]), strings(["x", "y"]))])
