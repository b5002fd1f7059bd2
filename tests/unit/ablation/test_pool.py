"""Pool, noise, splits and units: what an arm chooses from is a pure function of text and settings."""

import gzip
import json

import pytest

from corpusmill.ablation.config import NoiseConfig, PoolConfig
from corpusmill.ablation.noise import BOILERPLATE, CLEAN, JUNK, Document, with_noise
from corpusmill.ablation.pool import clean_bytes, split_pool, units_of
from corpusmill.errors import ConfigError, PermanentDataError


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    rows = [
        {"text": "\n".join(f"Line {k} of text {i} says something about rivers and hills." for k in range(40))}
        for i in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pool(texts, **values):
    return PoolConfig(files=(str(texts),), **values)


def source_of(document):
    return document.doc_id.partition("#")[0]


def test_noise_has_the_wanted_share_of_characters_and_every_line_has_its_kind():
    text = "\n".join("A clean line of some thirty words. " * 5 for _ in range(200))
    (mixed,) = with_noise([Document("a", text)], NoiseConfig(boilerplate=0.5, junk=0.25))
    lines = mixed.text.split("\n")
    size = dict.fromkeys((CLEAN, BOILERPLATE, JUNK), 0)
    for line, kind in zip(lines, mixed.kinds, strict=True):
        size[kind] += len(line)
    assert size[CLEAN] == sum(len(line) for line in text.split("\n"))
    assert size[BOILERPLATE] / size[CLEAN] == pytest.approx(0.5, abs=0.1)
    assert size[JUNK] / size[CLEAN] == pytest.approx(0.25, abs=0.1)
    assert clean_bytes(mixed.text, mixed.kinds) == size[CLEAN]


def test_noise_depends_on_the_document_alone():
    documents = [Document(f"d{i}", f"Some words stand here {i}.\n" * 30) for i in range(5)]
    config = NoiseConfig(seed=3)
    assert with_noise(documents[::-1], config)[::-1] == with_noise(documents, config)
    assert with_noise(documents, NoiseConfig(seed=4)) != with_noise(documents, config)


def test_the_parts_share_no_source_document(texts):
    parts = split_pool(pool(texts, document_chars=500, noise=NoiseConfig()))
    sources = {name: {source_of(d) for d in documents} for name, documents in parts.items()}
    assert len(sources["pool"]) == 18
    assert len(sources["reference"]) == 18
    assert len(sources["test_crawl"]) == 4
    assert not sources["pool"] & sources["reference"]
    assert not sources["test_crawl"] & (sources["pool"] | sources["reference"])
    assert sources["clean"] == sources["reference"]
    assert all(d.kinds is None for d in parts["clean"] + parts["test_clean"])


def test_a_real_crawl_has_no_clean_text_unless_it_is_named(texts, tmp_path):
    bare = split_pool(pool(texts))
    assert bare["clean"] == bare["test_clean"] == []
    assert all(document.kinds is None for document in bare["pool"])
    clean = tmp_path / "clean.txt.gz"
    article = "\n".join(f"The river number {k} runs to the sea ." for k in range(30))
    with gzip.open(clean, "wt") as stream:
        stream.write("".join(f" = Title {i} = \n {article} \n" for i in range(10)))
    named = split_pool(pool(texts, clean_files=(str(clean),)))
    assert len({source_of(d) for d in named["test_clean"]}) == 1
    assert len({source_of(d) for d in named["clean"]}) == 9


def test_passages_are_cut_at_spaces_and_hold_all_of_the_text_but_the_remainder(texts):
    config = pool(texts, passage_bytes=200)
    documents = [Document("a", "Many short words stand in this line.\n" * 60, (CLEAN,) * 60 + (JUNK,))]
    units = units_of(documents, config)
    assert all(200 <= len(unit.text.encode()) + 2 < 220 for unit in units)
    joined = " ".join(" ".join(unit.text for unit in units).split())
    whole = " ".join(documents[0].text.split())
    assert whole.startswith(joined)
    assert 0 <= len(whole) - len(joined) < 200
    assert all(unit.clean_bytes >= len(unit.text) for unit in units)


def test_text_without_spaces_is_cut_too(texts):
    units = units_of([Document("a", "語" * 2000)], pool(texts, passage_bytes=64))
    assert len(units) > 10
    assert all(unit.clean_bytes is None for unit in units)


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"files": ("/nowhere/*.jsonl",)}, ConfigError, "names no file"),
        ({"max_documents": 3, "test_share": 0.4, "reference_share": 0.55}, PermanentDataError, "none are left"),
    ],
)
def test_what_cannot_be_split_says_why(texts, values, error, message):
    with pytest.raises(error, match=message):
        split_pool(PoolConfig(**{"files": (str(texts),), **values}))


def test_a_pool_smaller_than_one_passage_is_refused(texts):
    with pytest.raises(PermanentDataError, match="passage_bytes=256"):
        units_of([Document("a", "short")], pool(texts))
