"""Scores that exist are taken: committed rows by text, and a killed task's groups as they were."""

import pyarrow as pa
import pytest

from corpusmill.batches import rows_to_table
from corpusmill.modeling.output_cache import SqliteOutputCache
from corpusmill.pruning.config import ScoringConfig
from corpusmill.pruning.scoring import ScoreStage
from corpusmill.pruning.stored_scores import ScoreReuse, content_digests
from corpusmill.pruning.windows import FIRST_GROUP
from corpusmill.schema import SCORES, text_digest

WORDS = (
    "the",
    "old",
    "mill",
    "grinds",
    "grain",
    "and",
    "nobody",
    "asks",
    "how",
    "long",
    "the",
    "river",
    "will",
    "carry",
    "it",
)
TEXTS = [" ".join(WORDS[i % 7 :] + WORDS[: i % 11] * (i % 5)) + f" {i}" for i in range(FIRST_GROUP + 40)]


def batch_of(texts):
    n = len(texts)
    columns = {
        "crawl": ["C"] * n,
        "doc_id": [f"d{i}" for i in range(n)],
        "warc_file": ["w"] * n,
        "language": ["en"] * n,
    }
    return pa.table({**columns, "text": pa.array(texts, pa.large_string())})


def stage_with(folder, reuse=None, **settings):
    config = ScoringConfig(model=str(folder), device="cpu", metrics=("perplexity", "el2n"), **settings)
    return ScoreStage(config) if reuse is None else ScoreStage(config, reuse)


class Rows:
    """Committed rows of another run."""

    def __init__(self, table):
        self.rows = {row["text_digest"]: row for row in table.to_pylist()}

    def find(self, key):
        return self.rows.get(key)


class Killed(Exception):
    pass


def killed_after(stage, groups):
    """Makes the stage die when it has scored so many groups."""
    score, done = stage._score, []

    def dying(units, scorer):
        if len(done) == groups:
            raise Killed
        done.append(len(units))
        return score(units, scorer)

    stage._score = dying
    return done


def test_committed_scores_need_no_model(tiny_folder, tmp_path):
    fresh = stage_with(tiny_folder).process(batch_of(TEXTS))
    stage = stage_with(tmp_path / "no model is here", ScoreReuse("a", Rows(fresh.kept)))
    stage.setup()
    again = stage.process(batch_of(TEXTS))
    assert again.kept.equals(fresh.kept)
    assert (again.metrics["reused_stored"], again.metrics["model_calls"]) == (len(TEXTS), 0)
    for name in ("n_tokens", "n_scored_tokens", "nll_sum", "n_unscored_documents"):
        assert again.metrics[name] == fresh.metrics[name]


def test_only_texts_without_a_committed_score_reach_the_model(tiny_folder):
    fresh = stage_with(tiny_folder).process(batch_of(TEXTS))
    half = rows_to_table([r for i, r in enumerate(fresh.kept.to_pylist()) if i % 3], SCORES.schema)
    again = stage_with(tiny_folder, ScoreReuse("a", Rows(half))).process(batch_of(TEXTS))
    assert again.metrics["model_calls"] == len(TEXTS) - half.num_rows
    for new, old in zip(again.kept.to_pylist(), fresh.kept.to_pylist(), strict=True):
        assert new["nll_sum"] == pytest.approx(old["nll_sum"], rel=1e-5)
        assert {k: v for k, v in new.items() if not k.endswith("_sum")} == {
            k: v for k, v in old.items() if not k.endswith("_sum")
        }


def test_a_killed_task_resumes_with_the_same_rows(tiny_folder, tmp_path):
    fresh = stage_with(tiny_folder).process(batch_of(TEXTS))
    with SqliteOutputCache(tmp_path / "scores.sqlite") as checkpoints:
        dying = stage_with(tiny_folder, ScoreReuse("a", None, checkpoints))
        killed_after(dying, 1)
        with pytest.raises(Killed):
            dying.process(batch_of(TEXTS))
    with SqliteOutputCache(tmp_path / "scores.sqlite") as checkpoints:
        again = stage_with(tiny_folder, ScoreReuse("a", None, checkpoints)).process(batch_of(TEXTS))
        other = stage_with(tiny_folder, ScoreReuse("b", None, checkpoints)).process(batch_of(TEXTS))
    assert again.kept.equals(fresh.kept), "to the last bit: the same groups went through the model"
    assert (again.metrics["reused_cache"], again.metrics["model_calls"]) == (FIRST_GROUP, len(TEXTS) - FIRST_GROUP)
    assert other.metrics["reused_cache"] == 0, "other settings or models find nothing"


def test_a_row_without_text_is_never_found(tiny_folder):
    fresh = stage_with(tiny_folder).process(batch_of([*TEXTS[:3], None]))
    (failed,) = fresh.removed.to_pylist()
    assert failed["text_digest"] is None
    again = stage_with(tiny_folder, ScoreReuse("a", Rows(fresh.kept))).process(batch_of([None, ""]))
    assert [row["skipped_reason"] for row in again.removed.to_pylist()] == ["error.null_text"]
    assert again.metrics["reused_stored"] == 0


def test_sequences_are_known_by_their_tokens():
    batch = pa.table({"tokens": pa.array([[1, 2], [12], None], pa.list_(pa.int32()))})
    assert content_digests(batch) == [text_digest("1 2"), text_digest("12"), ""]
