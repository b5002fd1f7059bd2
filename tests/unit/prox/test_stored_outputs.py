"""Refiners in front of a real one: what is looked up where, what reaches the model, and what is never taken."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest

from corpusmill.errors import ConfigError, ModelError, TransientDataError
from corpusmill.modeling.load import model_folder
from corpusmill.modeling.output_cache import SqliteOutputCache
from corpusmill.prox.chunk_refinement import ChunkRefinementStage, written_programs
from corpusmill.prox.chunking import split_text
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig
from corpusmill.prox.doc_refinement import DocRefinementStage, decide
from corpusmill.prox.failures import answer_each
from corpusmill.prox.program_execution import LOOPED
from corpusmill.prox.refiner import (
    TOO_LONG_PROMPT,
    ChunkOutput,
    DocDecision,
    folder_digest,
    load_chunk_refiner,
    load_doc_refiner,
)
from corpusmill.prox.stored_outputs import (
    Reuse,
    ReusingChunkRefiner,
    ReusingDocRefiner,
    StoredDecision,
    StoredPrograms,
    WrittenProgram,
    output_identity,
)
from corpusmill.schema import CHUNK_REFINEMENTS, text_digest

GOOD = "\n".join(f"sentence {n} tells something about the river and its water" for n in range(6))


def batch(texts):
    n = len(texts)
    columns = {"doc_id": [f"d{i}" for i in range(n)], "crawl": ["C"] * n, "warc_file": ["a"] * n, "text": texts}
    return pa.table({name: pa.array(values, pa.large_string()) for name, values in columns.items()})


def rows(output):
    return {row["doc_id"]: row for row in output.kept.to_pylist() + output.removed.to_pylist()}


class Writer:
    """Writes a fixed output for chunks and counts what it sees."""

    model_id, fingerprint = "writer@0", "k"

    def __init__(self, output="remove_lines(start=0, end=0)", **fields):
        whole = isinstance(output, ChunkOutput)
        self.output = output if whole else ChunkOutput(output, 5, **{"truncated": False, **fields})
        self.seen = []

    def split(self, text):
        return split_text(text, lambda line: 1, 3)

    def write_programs(self, chunks):
        self.seen += chunks
        return [self.output for _ in chunks]


class Decider:
    """Decides with a fixed output and margin."""

    model_id, fingerprint = "decider@0", "k"

    def __init__(self, output="keep_doc()", margin=0.4):
        self.answer, self.seen = DocDecision("keep", margin, output, 7, False, "kept"), []

    def decide(self, texts):
        self.seen += texts
        return [self.answer for _ in texts]


class InMemory:
    """Stored outputs by digest."""

    def __init__(self, decisions=(), programs=()):
        self.decisions, self.program_rows = dict(decisions), dict(programs)

    def decision(self, digest):
        return self.decisions.get(digest)

    def programs(self, digest):
        return self.program_rows.get(digest)


@pytest.fixture
def cache(tmp_path):
    with SqliteOutputCache(tmp_path / "programs.sqlite") as opened:
        yield opened


CHUNKS = ChunkRefinementConfig(model="none")
DOCUMENTS = DocRefinementConfig(model="none")


def stored_after(stage, text=GOOD):
    """What a stage's rows would give a later run."""
    row = rows(stage.process(batch([text])))["d0"]
    return InMemory(programs={row["text_digest"]: StoredPrograms(row["output_key"], written_programs(row["programs"]))})


def test_stored_programs_are_executed_again_and_nothing_reaches_the_model():
    before = ChunkRefinementStage(CHUNKS, Writer())
    other, silent = CHUNKS.model_copy(update={"min_words": 100}), Writer("remove_lines(all=True)")
    again = ChunkRefinementStage(other, silent, Reuse(stored=stored_after(before)))
    fresh = ChunkRefinementStage(other, Writer())
    output = again.process(batch([GOOD]))
    assert rows(output) == rows(fresh.process(batch([GOOD])))
    assert rows(output)["d0"]["reason"] == "dropped_min_words"
    assert silent.seen == []
    metrics = {name: output.metrics[name] for name in ("reused_stored", "reused_cache", "model_calls")}
    assert metrics == {"reused_stored": 2, "reused_cache": 0, "model_calls": 0}


@pytest.mark.parametrize(
    "policy", [{"max_errors": 1}, {"max_removed": 0.1}, {"min_kept": 0.9}, {"mode": "compat"}, {"min_words": 0}]
)
@pytest.mark.parametrize(
    "output",
    [
        ChunkOutput("remove_lines(start=1, end=3)\nremove_lines(start=x)", 9, truncated=False),
        ChunkOutput('normalize(source_str="river", target_str="")\nremove_lines(start=4, end', 9, truncated=True),
        ChunkOutput("", 3000, truncated=False, reason=TOO_LONG_PROMPT),
        ChunkOutput("remove_lines(start=0, end=0)\nremove_lines(start=0, end=0)", 9, False, LOOPED),
        ChunkOutput("", 9, truncated=False),
    ],
    ids=["error", "truncated", "not sent", "looped", "empty"],
)
def test_a_row_holds_all_that_another_policy_needs(policy, output):
    stored = stored_after(ChunkRefinementStage(CHUNKS, Writer(output)))
    assert {program.output for program in stored.programs(text_digest(GOOD)).programs} == {output}
    other = CHUNKS.model_copy(update=policy)
    again = ChunkRefinementStage(other, Writer("never asked"), Reuse(stored=stored)).process(batch([GOOD]))
    fresh = ChunkRefinementStage(other, Writer(output)).process(batch([GOOD]))
    assert rows(again) == rows(fresh)


def test_a_looped_output_is_executed_and_counted_and_one_that_was_not_sent_is_not():
    looped = ChunkRefinementStage(CHUNKS, Writer("remove_lines(start=0, end=0)", reason=LOOPED)).process(batch([GOOD]))
    row = rows(looped)["d0"]
    assert row["text"] == GOOD[GOOD.index("\n") + 1 :]
    assert [(p["reason"], p["note"]) for p in row["programs"]] == [("edited", "looped"), ("kept", "looped")]
    assert (looped.metrics["chunks_looped"], looped.metrics["chunks_failed"]) == (2, 0)
    unsent = ChunkRefinementStage(CHUNKS, Writer("remove_lines(all=True)", reason=TOO_LONG_PROMPT)).process(
        batch([GOOD])
    )
    assert rows(unsent)["d0"]["text"] == GOOD
    assert (unsent.metrics["chunks_looped"], unsent.metrics["chunks_failed"]) == (0, 2)


class Short(Writer):
    """Has no memory for the chunk at line 3 until it is told otherwise."""

    memory = False

    def write_programs(self, chunks):
        short = ChunkOutput("", 5, truncated=False, reason="error.out_of_memory_error")
        written = super().write_programs(chunks)
        return [short if c.first_line and not self.memory else w for c, w in zip(chunks, written, strict=True)]


def test_a_chunk_that_the_model_failed_on_fails_its_document_and_is_asked_for_again(cache):
    writer = Short()
    stage = ChunkRefinementStage(CHUNKS, writer, Reuse(cache=cache))
    brief = "one chunk of a document that has more than ten words in it"
    output = stage.process(batch([GOOD, brief]))
    failed, fine = rows(output)["d0"], rows(output)["d1"]
    assert (failed["kept"], failed["reason"], failed["programs"]) == (False, "error.out_of_memory_error", None)
    assert fine["programs"]
    assert output.metrics["failures"] == 1
    writer.memory, writer.seen = True, []
    again = stage.process(batch([GOOD, brief]))
    assert [chunk.first_line for chunk in writer.seen] == [3]
    assert rows(again)["d0"]["text"] == GOOD[GOOD.index("\n") + 1 :]


def test_the_same_chunk_at_another_line_or_of_another_key_is_another_chunk(cache):
    first = Writer()
    refiner = ReusingChunkRefiner(CHUNKS, first, Reuse(cache=cache))
    chunks = refiner.split(GOOD)
    assert refiner.write_programs([*chunks, chunks[0]]) == [first.output] * 3
    assert first.seen == chunks
    assert refiner.take_counts() == {"reused_stored": 0, "reused_cache": 1, "model_calls": 2}
    second = Writer("never asked")
    again = ReusingChunkRefiner(CHUNKS, second, Reuse(cache=cache))
    assert again.write_programs(chunks) == [first.output] * 2
    moved = replace(chunks[1], first_line=0)
    assert again.write_programs([moved]) == [second.output]
    other = Writer("other")
    other.fingerprint = "other key"
    assert ReusingChunkRefiner(CHUNKS, other, Reuse(cache=cache)).write_programs(chunks) == [other.output] * 2


def test_documents_and_chunks_are_kept_apart_in_the_cache(cache):
    decider, writer = Decider(), Writer()
    ReusingDocRefiner(DOCUMENTS, decider, Reuse(cache=cache)).decide([GOOD])
    refiner = ReusingChunkRefiner(CHUNKS, writer, Reuse(cache=cache))
    assert refiner.write_programs(refiner.split(GOOD)) == [writer.output] * 2
    silent = Decider("drop_doc()")
    assert ReusingDocRefiner(DOCUMENTS, silent, Reuse(cache=cache)).decide([GOOD, GOOD]) == [decider.answer] * 2
    assert silent.seen == []


@pytest.mark.parametrize(
    "output", ["keep_chunk()\ud800", "\ufeff\u2028", "x" * 100_000], ids=["surrogate", "odd", "long"]
)
def test_any_output_survives_the_cache(cache, output):
    text = GOOD + "\n\udc00 lone"
    for writer in (Writer(output), Writer("never asked")):
        refiner = ReusingChunkRefiner(CHUNKS, writer, Reuse(cache=cache))
        written = refiner.write_programs(refiner.split(text))
        assert {program.output for program in written} == {output}


def test_stored_windows_that_do_not_fit_the_text_are_not_taken():
    for first, last in ((1, 5), (0, 4), (0, 6), (3, 1)):
        stored = StoredPrograms("k", (WrittenProgram(first, last, ChunkOutput("never", 1, truncated=False)),))
        writer = Writer()
        refiner = ReusingChunkRefiner(CHUNKS, writer, Reuse(stored=InMemory(programs={text_digest(GOOD): stored})))
        refiner.write_programs(refiner.split(GOOD))
        assert len(writer.seen) == 2


SCRIPT = {"default": "remove_lines(start=0, end=0)"}


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "scripted"
    place.mkdir()
    (place / "script.json").write_text(json.dumps(SCRIPT))
    return place


def test_the_key_follows_outputs_and_not_policies(folder):
    for config_type in (DocRefinementConfig, ChunkRefinementConfig):
        config = config_type(backend="scripted", model=str(folder), prompt_ids="sft")
        key = output_identity(config).fingerprint
        policy = {"reuse_stored": False, "device": "cuda", "max_error_fraction": 0.5, "endpoint": "http://host"}
        policy |= {"threshold": 0.3, "mode": "compat"} if config_type is DocRefinementConfig else {"min_words": 3}
        assert output_identity(config.model_copy(update=policy)).fingerprint == key
        for change in ({"max_new_tokens": 7}, {"prompt_ids": "compat"}, {"dtype": "float16"}, {"sha256": "00" * 32}):
            mode = {"mode": "compat"} if "prompt_ids" in change else {}
            assert output_identity(config.model_copy(update={**change, **mode})).fingerprint != key
    served = config.model_copy(update={"served_name": "big"})
    assert output_identity(served).model_id.startswith("big@")
    assert output_identity(served).fingerprint != key


def test_a_pinned_model_is_not_read_for_its_key(folder):
    config = ChunkRefinementConfig(backend="scripted", model=str(folder))
    digest = load_chunk_refiner(config).model_id.partition("@")[2]
    pinned = config.model_copy(update={"sha256": folder_digest(folder)})
    before = output_identity(config)
    (folder / "script.json").unlink()
    assert output_identity(pinned).fingerprint == before.fingerprint
    assert output_identity(pinned).model_id == before.model_id == f"scripted@{digest}"


def test_execution_modes_share_outputs_that_no_stopped_loop_can_tell_apart(folder):
    strict = ChunkRefinementConfig(backend="scripted", model=str(folder), mode="strict")
    compat = strict.model_copy(update={"mode": "compat"})
    assert output_identity(strict).fingerprint != output_identity(compat).fingerprint
    for config, other in ((strict, compat), (compat, strict)):
        for output, taken in (
            (ChunkOutput("remove_lines(start=1, end=2)", 9, truncated=False), True),
            (ChunkOutput("", 9000, truncated=False, reason=TOO_LONG_PROMPT), True),
            (ChunkOutput("remove_lines(start=1, end=2)", 9, truncated=True), False),
            (ChunkOutput("remove_lines(start=1, end=2)", 9, truncated=False, reason=LOOPED), False),
            (ChunkOutput("# menu\n# menu\nkeep_chunk()", 9, truncated=False), False),
            (ChunkOutput("remove_lines(1, 2)\nremove_lines(start=1, end=2)", 9, truncated=False), False),
        ):
            stored = StoredPrograms(output_identity(other).fingerprint, (WrittenProgram(0, 5, output),))
            reuse = Reuse(stored=InMemory(programs={text_digest(GOOD): stored}))
            refiner = ReusingChunkRefiner(config, reuse=reuse)
            assert (refiner.write_programs(refiner.split(GOOD)) == [output]) is taken


def test_a_cached_text_needs_no_model_at_all_another_time(folder, cache):
    config = ChunkRefinementConfig(backend="scripted", model=str(folder), window_tokens=24)
    first = ChunkRefinementStage(config, reuse=Reuse(cache=cache)).process(batch([GOOD]))
    pinned = config.model_copy(update={"sha256": folder_digest(folder)})
    (folder / "script.json").unlink()
    second = ChunkRefinementStage(pinned, reuse=Reuse(cache=cache)).process(batch([GOOD]))
    assert rows(second) == rows(first)
    assert len(rows(first)["d0"]["programs"]) == 3
    with pytest.raises(ConfigError, match="sha256"):
        ChunkRefinementStage(pinned, reuse=Reuse(cache=cache)).process(batch(["new " + GOOD]))


@pytest.mark.parametrize(
    ("output", "margin", "settings", "kept", "reason"),
    [
        ("keep_doc()", 0.4, {}, True, "kept"),
        ("keep_doc()", 0.4, {"threshold": 0.4}, False, "dropped_model"),
        ("drop_doc()", 0.6, {"threshold": 0.61}, True, "kept"),
        ("drop_doc()", 0.6, {"threshold": 0.6}, False, "dropped_model"),
        ("drop_doc()", None, {}, False, "dropped_model"),
        ("keep_doc() I would not drop it", 0.4, {"threshold": 0.5, "mode": "compat"}, True, "kept"),
        ("keep_doc() I would not drop it", 0.4, {"mode": "compat"}, False, "dropped_model"),
        ("I keep it", 0.9, {"threshold": 0.5}, True, "unparsed"),
        ("I drop it", 0.1, {"threshold": 0.5, "mode": "compat"}, False, "dropped_model"),
        ("I drop it", 0.1, {"mode": "strict"}, True, "unparsed"),
        ("", 0.9, {"threshold": 0.5}, True, "empty_output"),
    ],
)
def test_a_document_is_decided_from_output_margin_and_policy(output, margin, settings, kept, reason):
    assert decide(output, margin, DocRefinementConfig(model="none", **settings)) == (kept, reason)


def test_a_threshold_without_margins_is_an_error_and_not_forgotten():
    with pytest.raises(ConfigError, match=r"threshold=0\.5 needs the odds"):
        DocRefinementStage(DocRefinementConfig(model="none", threshold=0.5), Decider(margin=None)).process(
            batch([GOOD])
        )


def test_the_modes_share_document_outputs_but_of_prompts_that_were_cut(folder):
    compat = DocRefinementConfig(backend="scripted", model=str(folder), mode="compat")
    strict = compat.model_copy(update={"mode": "strict"})
    assert output_identity(compat).fingerprint != output_identity(strict).fingerprint
    for config, other in ((compat, strict), (strict, compat)):
        for cut in (False, True):
            answer = DocDecision("keep", 0.2, "keep_doc() stored", 9, cut, "kept")
            stored = StoredDecision(output_identity(other).fingerprint, answer)
            reuse = Reuse(stored=InMemory(decisions={text_digest(GOOD): stored}))
            assert (ReusingDocRefiner(config, reuse=reuse).decide([GOOD]) == [answer]) is not cut


def test_stored_margins_serve_any_threshold():
    stage = DocRefinementStage(DOCUMENTS, Decider("keep_doc()", 0.4))
    row = rows(stage.process(batch([GOOD])))["d0"]
    answer = DocDecision("keep", row["margin"], row["program"], row["n_prompt_tokens"], row["truncated"], row["reason"])
    stored = InMemory(decisions={row["text_digest"]: StoredDecision(row["output_key"], answer)})
    for threshold, kept in ((0.3, False), (0.5, True)):
        config, silent = DOCUMENTS.model_copy(update={"threshold": threshold}), Decider("never asked")
        output = DocRefinementStage(config, silent, Reuse(stored=stored)).process(batch([GOOD]))
        found = rows(output)["d0"]
        assert (found["kept"], found["program"], found["margin"]) == (kept, "keep_doc()", 0.4)
        assert silent.seen == []


def test_a_threshold_gives_what_the_refiner_itself_would_decide_with_it():
    model = str(model_folder("bundled:line_labeller"))
    for threshold in (None, 0.02, 0.9):
        config = DocRefinementConfig(backend="labeller", model=model, threshold=threshold)
        own = load_doc_refiner(config).decide([GOOD])[0]
        row = rows(DocRefinementStage(config).process(batch([GOOD])))["d0"]
        assert (row["decision"], row["reason"], row["margin"]) == (own.decision, own.reason, own.margin)


def test_surrogates_in_outputs_are_replaced_and_counted():
    documents = DocRefinementStage(DOCUMENTS, Decider("keep_doc()\ud800")).process(batch([GOOD]))
    assert documents.metrics["surrogates_replaced"] == 1
    assert rows(documents)["d0"]["program"] == "keep_doc()\ufffd"
    chunks = ChunkRefinementStage(CHUNKS, Writer("keep_chunk()\ud800\udfff")).process(batch([GOOD]))
    assert chunks.metrics["surrogates_replaced"] == 4


def test_rows_of_versions_without_notes_can_be_executed():
    program = {"first_line": 0, "last_line": 5, "output": "", "n_errors": 0, "truncated": None, "n_prompt_tokens": None}
    for reason, note in (("too_long_prompt", "too_long_prompt"), ("empty_output", ""), ("edited", "")):
        (written,) = written_programs([{**program, "reason": reason, "note": None}])
        assert written.output == ChunkOutput("", 0, truncated=False, reason=note)
    assert CHUNK_REFINEMENTS.schema.field("output_key").nullable


class Counting:
    """Fails on any batch that holds an item of ``bad``."""

    def __init__(self, bad, error):
        self.bad, self.error, self.calls = bad, error, 0

    def __call__(self, items):
        self.calls += 1
        if self.bad & set(items):
            raise self.error
        return [item * 2 for item in items]


def test_a_failing_batch_is_halved_until_only_the_items_at_fault_are_alone():
    call = Counting({5, 300}, MemoryError("too big"))
    answers = answer_each(call, list(range(512)))
    assert [n for n, answer in enumerate(answers) if isinstance(answer, MemoryError)] == [5, 300]
    assert all(answer == 2 * n for n, answer in enumerate(answers) if n not in (5, 300))
    assert call.calls < 50


@pytest.mark.parametrize("error", [TransientDataError("the server does not answer"), ModelError("no such model")])
def test_what_no_document_is_at_fault_for_is_raised_at_once(error):
    call = Counting({5}, error)
    with pytest.raises(type(error)):
        answer_each(call, list(range(64)))
    assert call.calls == 1


def test_a_refiner_that_breaks_while_it_loads_is_a_model_error(monkeypatch):
    def no_memory(config):
        raise RuntimeError("no device")

    monkeypatch.setattr("corpusmill.prox.stored_outputs.load_doc_refiner", no_memory)
    with pytest.raises(ModelError, match="no device"):
        DocRefinementStage(DOCUMENTS).process(batch([GOOD]))
