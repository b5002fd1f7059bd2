"""The two map stages: contract, rows, reasons, failures and metrics."""

import json

import pyarrow as pa
import pytest

from corpusmill.errors import ConfigError, ModelError
from corpusmill.prox.chunk_refinement import ChunkRefinementStage
from corpusmill.prox.chunking import split_text
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig
from corpusmill.prox.doc_refinement import DocRefinementStage
from corpusmill.prox.refiner import ChunkOutput, DocDecision
from corpusmill.stage import Stage

GOOD = "\n".join(f"sentence {n} tells something about the river and its water" for n in range(6))
SPAM = "Buy now\n" + GOOD
MENU = "Subscribe here\n" + GOOD + "\nSubscribe there"


def batch(texts):
    return pa.table(
        {
            "doc_id": [f"d{n}" for n in range(len(texts))],
            "crawl": ["CC-TEST"] * len(texts),
            "text": pa.array(texts, pa.large_string()),
            "warc_file": ["a.warc.gz"] * len(texts),
            "unrelated": [1] * len(texts),
        }
    )


def script(tmp_path, **answers):
    path = tmp_path / "script.json"
    path.write_text(json.dumps(answers))
    return str(tmp_path)  # a folder, as every other model


def doc_stage(tmp_path, **answers):
    stage = DocRefinementStage(DocRefinementConfig(backend="scripted", model=script(tmp_path, **answers)))
    stage.setup()
    return stage


def chunk_stage(tmp_path, settings=(), **answers):
    config = ChunkRefinementConfig(backend="scripted", model=script(tmp_path, **answers), **dict(settings))
    stage = ChunkRefinementStage(config)
    stage.setup()
    return stage


def rows(output):
    merged = output.kept.to_pylist() + output.removed.to_pylist()
    return {row["doc_id"]: row for row in merged}


def test_document_stage_splits_kept_and_removed_and_keeps_the_program(tmp_path):
    stage = doc_stage(tmp_path, containing={"Buy now": "drop_doc()", "river": "keep_doc()"})
    assert isinstance(stage, Stage)
    output = stage.process(batch([GOOD, SPAM, " \n", ""]))
    assert output.kept.schema.equals(stage.output_schema)
    assert output.removed.schema.equals(stage.output_schema)
    found = rows(output)
    assert {doc: row["reason"] for doc, row in found.items()} == {
        "d0": "kept",
        "d1": "dropped_model",
        "d2": "dropped_min_words",
        "d3": "dropped_min_words",
    }
    assert output.kept["doc_id"].to_pylist() == ["d0"]
    assert (found["d1"]["decision"], found["d1"]["program"]) == ("drop", "drop_doc()")
    assert found["d1"]["n_chars"] == len(SPAM)
    assert found["d0"]["model_id"].startswith(tmp_path.name + "@")
    assert output.metrics["calls"] == 2


def test_chunk_stage_stores_programs_operations_and_refined_text(tmp_path):
    stage = chunk_stage(tmp_path, remove_lines_with=["Subscribe"])
    assert isinstance(stage, Stage)
    output = stage.process(batch([GOOD, MENU, ""]))
    assert output.kept.schema.equals(stage.output_schema)
    found = rows(output)
    assert (found["d0"]["reason"], found["d0"]["text"]) == ("kept", GOOD)
    assert (found["d1"]["reason"], found["d1"]["text"]) == ("edited", GOOD)
    assert found["d1"]["programs"] == [
        {
            "first_line": 0,
            "last_line": 7,
            "output": "remove_lines(start=0, end=0)\nremove_lines(start=7, end=7)",
            "reason": "edited",
            "n_errors": 0,
            "truncated": False,
            "note": "",
            "n_prompt_tokens": len(MENU.split()),
        }
    ]
    assert [(op["op"], op["first_line"], op["n_applied"]) for op in found["d1"]["operations"]] == [
        ("remove_lines", 0, 1),
        ("remove_lines", 7, 1),
    ]
    assert (found["d2"]["reason"], found["d2"]["text"], found["d2"]["n_chunks"]) == ("dropped_min_words", None, 0)
    assert output.metrics["characters_removed.remove_lines"] == len(MENU) - len(GOOD)
    assert output.metrics["words_removed"] == 4
    assert (output.metrics["calls"], output.metrics["chunks"], output.metrics["chunks_untouched"]) == (3, 2, 1)


def test_long_documents_are_refined_window_by_window(tmp_path):
    stage = chunk_stage(tmp_path, {"window_tokens": 24}, remove_lines_with=["sentence 5"])
    row = rows(stage.process(batch([GOOD])))["d0"]
    assert [(p["first_line"], p["last_line"]) for p in row["programs"]] == [(0, 1), (2, 3), (4, 5)]
    assert row["text"] == GOOD[: GOOD.rindex("\n")]
    assert row["operations"][0]["chunk"] == 2


def test_a_dropped_document_has_no_text_and_says_why(tmp_path):
    stage = chunk_stage(tmp_path, default="remove_lines(all=True)")
    output = stage.process(batch([GOOD]))
    row = rows(output)["d0"]
    assert output.kept.num_rows == 0
    assert (row["kept"], row["reason"], row["text"], row["n_chars_after"]) == (False, "dropped_ratio", None, 0)


class FailingRefiner:
    """Fails on any batch that holds a text with "poison"; everything else is kept."""

    model_id = "failing@0"
    fingerprint = "0"

    def decide(self, texts):
        self._check(texts)
        return [DocDecision("keep", None, "keep_doc()", 1, False, "kept") for _ in texts]

    def split(self, text):
        return split_text(text, len, 10**6)

    def write_programs(self, chunks):
        self._check(["\n".join(chunk.lines) for chunk in chunks])
        return [ChunkOutput("keep_chunk()\ud800", 1, True) for _ in chunks]

    def _check(self, texts):
        if any("poison" in text for text in texts):
            raise MemoryError("too big")


@pytest.mark.parametrize("which", ["documents", "chunks"])
def test_a_document_that_the_refiner_fails_on_is_removed_alone(which):
    if which == "documents":
        stage = DocRefinementStage(DocRefinementConfig(model="none"), FailingRefiner())
    else:
        stage = ChunkRefinementStage(ChunkRefinementConfig(model="none"), FailingRefiner())
    output = stage.process(batch([GOOD, "poison " + GOOD, GOOD]))
    found = rows(output)
    assert {doc: row["reason"] for doc, row in found.items()} == {
        "d0": "kept",
        "d1": "error.memory_error",
        "d2": "kept",
    }
    assert found["d1"]["kept"] is False
    assert output.metrics["failures"] == 1
    if which == "chunks":
        assert output.metrics["chunks_truncated"] == 2
        assert found["d0"]["programs"][0]["output"] == "keep_chunk()\ufffd"


def test_rows_do_not_depend_on_order_or_batches(tmp_path):
    texts = [GOOD, SPAM, MENU, "", "poor", GOOD + "\nBuy now"]
    for stage in (
        doc_stage(tmp_path, containing={"Buy now": "drop_doc()"}),
        chunk_stage(tmp_path, remove_lines_with=["Subscribe", "Buy"]),
    ):
        whole = batch(texts)
        together = rows(stage.process(whole))
        turned = rows(stage.process(whole.take(list(range(len(texts)))[::-1])))
        apart = {}
        for n in range(len(texts)):
            apart |= rows(stage.process(whole.slice(n, 1)))
        assert together == turned == apart


def test_empty_batches_give_empty_tables(tmp_path):
    for stage in (doc_stage(tmp_path), chunk_stage(tmp_path)):
        output = stage.process(batch([]))
        assert output.kept.num_rows == output.removed.num_rows == 0
        assert output.kept.schema.equals(stage.output_schema)


def test_fingerprints_follow_what_decides_and_nothing_else():
    config = ChunkRefinementConfig(model="gair-prox/web-chunk-refining-lm")
    same = config.model_copy(update={"device": "cuda", "batch_tokens": 7, "max_error_fraction": 1.0})
    assert same.fingerprint() == config.fingerprint()
    for change in ({"mode": "strict"}, {"min_words": 3}, {"revision": "abc"}, {"dtype": "float16"}, {"threshold": 0.5}):
        assert config.model_copy(update=change).fingerprint() != config.fingerprint()


def test_public_refiners_run_in_compat_mode_and_others_in_strict_mode():
    assert DocRefinementConfig(model="gair-prox/web-doc-refining-lm").execution_mode == "compat"
    assert DocRefinementConfig(model="my/refiner").execution_mode == "strict"
    assert DocRefinementConfig(model="my/refiner", mode="compat").execution_mode == "compat"


def test_a_model_that_cannot_be_loaded_is_no_fault_of_the_documents(tmp_path):
    for stage in (
        DocRefinementStage(DocRefinementConfig(backend="scripted", model=str(tmp_path / "absent.json"))),
        ChunkRefinementStage(ChunkRefinementConfig(backend="scripted", model=str(tmp_path / "absent.json"))),
    ):
        with pytest.raises(ModelError):
            stage.process(batch([GOOD]))


def test_unusable_models_are_named(tmp_path):
    bad = tmp_path / "bad.json"
    bad.write_text('{"answers": 1}')
    with pytest.raises(ModelError, match="answers"):
        DocRefinementStage(DocRefinementConfig(backend="scripted", model=str(bad))).setup()
    bad.write_text("[1]")
    with pytest.raises(ModelError, match="expected an object"):
        DocRefinementStage(DocRefinementConfig(backend="scripted", model=str(bad))).setup()
    with pytest.raises(ModelError, match="no script"):
        ChunkRefinementStage(ChunkRefinementConfig(backend="scripted", model=str(tmp_path))).setup()
    with pytest.raises(ModelError, match="does not exist"):
        DocRefinementStage(DocRefinementConfig(model=str(tmp_path / "absent"))).setup()
    with pytest.raises(ConfigError, match="hub id"):
        DocRefinementStage(DocRefinementConfig(model="some/model", sha256="00")).setup()
    with pytest.raises(ConfigError, match="no folder"):
        ChunkRefinementStage(ChunkRefinementConfig(backend="labeller", model="some/model")).setup()
