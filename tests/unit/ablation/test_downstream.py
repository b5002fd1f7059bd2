"""Minimal pairs and classification files: what the formats are, and what broken ones say."""

import gzip
import json
from pathlib import Path

import pytest

from corpusmill.ablation.config import ClassificationConfig
from corpusmill.ablation.downstream import Pair, fine_tune, measure_pairs, read_examples, read_pairs, task_examples
from corpusmill.errors import PermanentDataError

GLUE = {
    "sst2": "sentence\tlabel\na \"quoted\" and warm film \t1\nit is dull\t0\n",
    "mrpc": "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tHe came home.\tHe returned home.\n"
    '0\t9\t10\t"Rain fell.\tSnow fell.\n',
    "qqp": "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n0\t1\t2\tHow far is it?\tWhat is the distance?\t1\n"
    "1\t3\t4\tWho are you?\tWhy is it late?\t0\n",
    "qnli": "index\tquestion\tsentence\tlabel\n0\tWhere is it?\tIt is in town.\tentailment\n"
    "1\tWho wrote it?\tIt rained.\tnot_entailment\n",
    "rte": "index\tsentence1\tsentence2\tlabel\n0\tIt snowed.\tIt was cold.\tentailment\n1\tA.\tB.\tnot_entailment\n",
    "wnli": "index\tsentence1\tsentence2\tlabel\n0\tIt broke.\tThe cup broke.\t1\n1\tA.\tB.\t0\n",
}  # fmt: skip


class Counting:
    """A model whose negative log-likelihood is the number of tokens: it prefers the shorter sentence."""

    def nll(self, sequences):
        return [float(len(ids)) for ids in sequences]


class Words:
    def encode_batch(self, texts):
        return [text.split() for text in texts]


def test_a_pair_is_right_where_the_good_sentence_is_more_probable_and_a_tie_is_wrong():
    pairs = [Pair("a b", "a b c", "x"), Pair("a b c", "a", "x"), Pair("a b", "b a", "y")]
    found = measure_pairs(Counting(), Words(), pairs)
    assert found == {"n": 3, "accuracy": pytest.approx(1 / 3), "by_field": {"x": 0.5, "y": 0.0}}


def test_our_own_pairs_differ_in_one_point_and_keep_their_length():
    pairs = read_pairs("bundled:minimal_pairs")
    assert len(pairs) == 24
    assert len({pair.good for pair in pairs}) == 24
    for pair in pairs:
        assert pair.good != pair.bad
        assert len(pair.good.split()) == len(pair.bad.split())


def test_blimps_own_file_is_read(shared_data):
    pairs = read_pairs(str(shared_data / "eval" / "blimp_100.jsonl.gz"))
    assert len(pairs) == 6700
    assert {"island_effects", "anaphor_agreement"} <= {pair.field for pair in pairs}


@pytest.mark.parametrize("task", sorted(GLUE))
def test_the_files_of_every_glue_task_are_read_as_they_are(tmp_path, task):
    path = tmp_path / "train.tsv"
    path.write_text(GLUE[task], encoding="utf-8")
    examples = read_examples(path, ClassificationConfig(train=str(path), task=task))
    assert [len(example.texts) for example in examples] == [1 if task == "sst2" else 2] * 2
    assert len({example.label for example in examples}) == 2
    if task == "mrpc":
        assert examples[1].texts == ('"Rain fell.', "Snow fell.")


def test_csv_and_json_lines_name_their_columns(tmp_path):
    path = tmp_path / "banking.csv.gz"
    with gzip.open(path, "wt") as stream:
        stream.write('text,category\n"I lost, my card",lost_card\nWhere is it?,card_arrival\n')
    config = ClassificationConfig(train=str(path), text=("text",), label="category")
    assert [e.texts for e in read_examples(path, config)] == [("I lost, my card",), ("Where is it?",)]
    lines = tmp_path / "rows.jsonl"
    lines.write_text(json.dumps({"a": "x", "b": "y", "c": 1}) + "\n")
    (example,) = read_examples(lines, ClassificationConfig(train=str(lines), text=("a", "b"), label="c"))
    assert (example.texts, example.label) == (("x", "y"), "1")


def test_rows_for_measuring_are_taken_by_hash_and_never_trained_on(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,label\n" + "".join(f"sentence {i},{i % 3}\n" for i in range(50)))
    train, dev = task_examples(ClassificationConfig(train=str(path), max_train=20, max_dev=6))
    assert (len(train), len(dev)) == (20, 6)
    assert not {e.texts for e in train} & {e.texts for e in dev}
    path.write_text("text,label\n" + "".join(f"sentence {i},{i % 3}\n" for i in reversed(range(50))))
    assert task_examples(ClassificationConfig(train=str(path), max_train=20, max_dev=6)) == (train, dev)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,label\n", "holds no row"),
        ("words,label\na,b\n", r"lacks the columns \['text'\]; it has \['label', 'words'\]"),
        ("text,label\nonly one\n", "row 1 is short"),
    ],
)
def test_a_broken_task_file_says_what_it_lacks(tmp_path, text, message):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(PermanentDataError, match=message):
        read_examples(path, ClassificationConfig(train=str(path)))


def test_broken_pairs_name_their_line(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"sentence_good": "a", "sentence_bad": "b"}\n{"good": "a"}\n')
    with pytest.raises(PermanentDataError, match="line 2"):
        read_pairs(str(path))
    with pytest.raises(PermanentDataError, match="is not a file"):
        read_pairs(str(tmp_path / "none.jsonl"))


@pytest.fixture(scope="module")
def clean_model():
    """The bundled reference model as a student, its tokenizer and end-of-document id."""
    from corpusmill.modeling.load import load_causal_lm, load_tokenizer

    tokenizer = load_tokenizer("bundled:reference_lm")
    return load_causal_lm("bundled:reference_lm", device="cpu"), tokenizer, tokenizer.eod_id


@pytest.mark.slow
def test_a_trained_model_prefers_the_grammatical_sentence_more_often_than_not(clean_model, shared_data):
    """BLiMP's agreement and irregular forms, our own pairs: measured 0.57 and 0.75."""
    from corpusmill.ablation.students import TorchStudent

    network, tokenizer, eod = clean_model
    model = TorchStudent(network, eod, 256)
    pairs = read_pairs(str(shared_data / "eval" / "blimp_100.jsonl.gz"))
    simple = [p for p in pairs if p.field in {"anaphor_agreement", "irregular_forms"}]
    found = measure_pairs(model, tokenizer, simple)
    assert found["n"] == 400
    assert found["accuracy"] > 0.53
    assert measure_pairs(model, tokenizer, read_pairs("bundled:minimal_pairs"))["accuracy"] > 0.6


@pytest.mark.slow
def test_banking77_is_read_and_fine_tuned_on(clean_model, shared_data, tmp_path):
    """Four of its 77 classes, so that 160 rows teach something."""
    network, tokenizer, eod = clean_model
    config = ClassificationConfig(train=str(shared_data / "eval" / "banking77_train.csv.gz"), label="category")
    examples = read_examples(Path(config.train), config)
    assert len({example.label for example in examples}) == 77
    wanted = {"card_arrival", "exchange_rate", "lost_or_stolen_card", "top_up_failed"}
    few = tmp_path / "few.jsonl"
    rows = [{"text": e.texts[0], "label": e.label} for e in examples if e.label in wanted]
    few.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = ClassificationConfig(
        train=str(few), max_train=160, max_dev=40, epochs=3, learning_rate=1e-3, batch_size=16, runs=1
    )
    before = network.lm_head.weight.sum().item()
    found = fine_tune(network, tokenizer, eod, config, tmp_path / "weights", lambda _: None)
    assert network.lm_head.weight.sum().item() == before
    assert (found["n"], found["n_classes"]) == (40, 4)
    assert found["accuracy"] > found["majority"] + 0.2


def test_the_loss_of_a_text_does_not_depend_on_its_batch_or_on_where_windows_are_cut(clean_model):
    from corpusmill.ablation.students import TorchStudent

    network, tokenizer, eod = clean_model
    ids = tokenizer.encode_batch(["The boy walks to school every day.", "It was a very cold morning.", ""])
    whole = TorchStudent(network, eod, 256)
    together = whole.nll(ids)
    alone = [whole.nll([one])[0] for one in ids]
    assert together == pytest.approx(alone, rel=1e-5)
    assert together[2] == 0.0
    first, rest = ids[0][:4], ids[0][4:]
    assert TorchStudent(network, eod, 5).nll([ids[0]])[0] == pytest.approx(
        sum(TorchStudent(network, eod, 5).nll([first, rest[:4], rest[4:]])), rel=1e-5
    )
