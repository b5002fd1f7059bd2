"""The reference model that ships with the package, and the code that made it."""

import json
import random

import pyarrow as pa
import pytest

from corpusmill.errors import PermanentDataError
from corpusmill.modeling.load import model_folder
from corpusmill.pruning.config import ScoringConfig, SelectionConfig
from corpusmill.pruning.demo_reference import (
    clean_documents,
    detokenise,
    measure,
    shuffled_words,
    wikitext_articles,
)
from corpusmill.pruning.scoring import ScoreStage
from corpusmill.pruning.selection import column_values, select

CLEAN = [
    "The house stood at the end of a long road, and nobody had lived in it for many years.",
    "She opened the letter slowly, because she already knew what her brother had written.",
    "In the spring the river rises quickly and the fields near the village are under water.",
    "The committee will meet again next week to discuss the report and the budget for the new school.",
    "He was a man of great patience, but he could not wait for the answer any longer.",
    "Most of the animals that live on the island are found nowhere else in the world.",
    "We must remember that the people of this country have always been ready to help each other.",
    "After dinner they walked to the harbour and looked at the ships until it was dark.",
]


@pytest.fixture(scope="module")
def stage():
    stage = ScoreStage(ScoringConfig(device="cpu"))
    stage.setup()
    return stage


def scores_of(stage, texts):
    n = len(texts)
    names = {name: ["x"] * n for name in ("crawl", "warc_file", "language")}
    return stage.process(pa.table({**names, "doc_id": [f"d{i}" for i in range(n)], "text": texts})).kept


@pytest.mark.parametrize("column", ["bits_per_byte", "mean_nll", "el2n"])
def test_clean_english_scores_below_its_own_words_shuffled(stage, column):
    rng = random.Random(0)
    shuffled = [shuffled_words(text, rng) for text in CLEAN]
    values = column_values(scores_of(stage, CLEAN + shuffled), column)
    n = len(CLEAN)
    assert values[:n].mean() < values[n:].mean()
    assert (values[:n] < values[n:]).mean() >= (0.7 if column == "el2n" else 0.9)


def test_other_junk_scores_above_clean_english_per_byte(stage):
    rng = random.Random(1)
    letters = "".join(sorted(set("".join(CLEAN))))
    noise = ["".join(rng.choices(letters, k=80)) for _ in CLEAN]
    codes = [
        "function(e){return e&&e.t?e:{default:e}}var n=r(3),o=r(7);",
        "\u00c3\u00a9\u00c3\u00a8 \u00c3\u00a2\u00e2\u201a\u00ac",
    ] * 4
    values = column_values(scores_of(stage, CLEAN + noise + codes), "bits_per_byte")
    assert values[: len(CLEAN)].max() < values[len(CLEAN) :].min()


def test_dropping_the_top_by_bits_per_byte_drops_the_junk(stage):
    rng = random.Random(2)
    texts = CLEAN + [shuffled_words("".join(rng.sample(text, len(text))), rng) for text in CLEAN]
    table = scores_of(stage, texts)
    config = SelectionConfig(column="bits_per_byte", fraction="1/2", which="bottom")
    values = column_values(table, config.column)
    assert select(values, table.column("doc_id"), config).keep(values, table.column("doc_id")).tolist() == (
        [True] * len(CLEAN) + [False] * len(CLEAN)
    )


def test_the_shipped_folder_is_small_and_holds_what_its_card_says():
    folder = model_folder("bundled:reference_lm")
    assert (folder / "model.safetensors").stat().st_size <= 4_000_000
    record = json.loads((folder / "training.json").read_text())
    card = (folder / "README.md").read_text()
    assert f"{record['validation_nll']:.3f} nats per token" in card
    assert f"--steps {record['settings']['steps']} --seed {record['settings']['seed']}" in card
    from corpusmill.modeling.load import model_sha256

    assert model_sha256(folder) in card


@pytest.mark.slow
def test_the_shipped_model_keeps_its_quality_on_held_out_text(shared_data):
    """Floors a little under the card's figures: another machine may round differently."""
    _, held_out = clean_documents(shared_data)
    measured = measure(model_folder("bundled:reference_lm"), list(held_out.values())[:8], n_sentences=120)
    assert measured.share_ordered >= 0.95
    assert measured.mean_gap >= 0.2
    assert measured.bits_per_byte <= 2.1


def test_the_split_depends_on_ids_alone_and_is_disjoint(shared_data):
    training, held_out = clean_documents(shared_data)
    assert not set(training) & set(held_out)
    assert 0.04 < len(held_out) / (len(held_out) + len(training)) < 0.14
    assert all("<unk>" not in text for text in (*training.values(), *held_out.values()))


def test_missing_texts_are_named(tmp_path):
    with pytest.raises(PermanentDataError, match="clean_books_speeches"):
        clean_documents(tmp_path)


def test_wikitext_becomes_ordinary_text():
    raw = (
        " = A Title = \n\n = = Part = = \n\n It is 12 @,@ 5 m ( 40 ft ) long . The <unk> is left out . "
        'They said " yes " , and it \'s well @-@ known . \n'
    )
    assert wikitext_articles(raw) == {
        "wikitext/A Title": 'It is 12,5 m (40 ft) long. They said "yes", and it\'s well-known.'
    }
    assert detokenise("don 't stop , now !") == "don't stop, now!"


def test_shuffling_keeps_the_words():
    text = CLEAN[0]
    assert sorted(shuffled_words(text, random.Random(3)).split()) == sorted(text.split())
