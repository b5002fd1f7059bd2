"""Refinement by real causal language models in child processes: equal rows, death midway, a parent without torch.

The two models are small Llamas with a SentencePiece vocabulary: the document model's output layer is set so that it
drops about half of the pages, the chunk model is taught in seconds to remove the first line.
"""

import io
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
sentencepiece = pytest.importorskip("sentencepiece")

from corpusmill.errors import Transient, WorkerDiedError  # noqa: E402
from corpusmill.lakehouse.commit import MissingShardsError  # noqa: E402
from corpusmill.lakehouse.shards import find_manifest  # noqa: E402
from corpusmill.prox.chunking import Chunk  # noqa: E402
from corpusmill.prox.prompt_tokenizer import load_tokenizer  # noqa: E402
from corpusmill.runner import chain  # noqa: E402
from corpusmill.runner.child import ChildJob  # noqa: E402
from corpusmill.runner.plan import load_plan  # noqa: E402

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CRAWL = "T-2024-10"
STAGES = ("refine_documents", "refine_chunks")
TABLES = ("document_refinements", "chunk_refinements")
REMOVE_FIRST = "remove_lines(start=0, end=0)"

DRIVER = """
import json, sys
from corpusmill.runner import chain
from corpusmill.runner.child import ChildJob
plan, stage, *shards = sys.argv[1:]
for shard in shards:
    ChildJob("corpusmill.runner.chain:run_shard", {"plan": plan, "stage": stage, "shard": shard}).run(lambda line: None)
report = chain.commit(plan, stage)
heavy = sorted({"torch", "transformers", "safetensors", "spacy"} & set(sys.modules))
print(json.dumps({"documents_in": report["documents_in"], "heavy": heavy}))
"""


def small_llama(folder: Path, articles: list[list[str]], spread: float):
    """Returns a model with random weights, after writing its tokenizer.model."""
    lines = [line for article in articles for line in article]
    lines += ["drop_doc()", "keep_doc()", "drop", "keep", REMOVE_FIRST, "[doc] [/doc] [INST] [/INST]"] * 60
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=stream, model_type="bpe", vocab_size=400, byte_fallback=True,
        split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False, character_coverage=1.0,
        minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(stream.getvalue())
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=400, hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, max_position_embeddings=2048, bos_token_id=1, eos_token_id=2, initializer_range=spread,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config)


def make_document_model(folder: Path, articles: list[list[str]]) -> None:
    """Saves a model whose answers "drop" and "keep" are far ahead, and depend on the strongest feature of the pages."""
    model = small_llama(folder, articles, 0.3).eval()
    tokenizer, hidden = load_tokenizer(folder), []
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda _, given: hidden.append(given[0][0, -1]))
    with torch.inference_mode():
        for article in articles:
            ids, _ = tokenizer.encoder.document_ids("\n".join(article), "compat", 2000)
            model(input_ids=torch.tensor([ids]))
        states = torch.stack(hidden)
        mean = states.mean(0)
        feature = torch.linalg.svd(states - mean).Vh[0]
        ahead = mean / mean.dot(mean)  # 1 for a page like the others
        tilt = (feature - feature.dot(mean) * ahead) * 10 / ((states - mean) @ feature).std()
        drop, keep = tokenizer.decision_ids()
        weight = model.get_output_embeddings().weight
        weight[drop], weight[keep] = 50 * ahead + tilt, 50 * ahead - tilt
    hook.remove()
    model.save_pretrained(folder)


def make_chunk_model(folder: Path, articles: list[list[str]], steps: int = 400) -> None:
    """Saves a model that was taught to remove the first line of any chunk."""
    model = small_llama(folder, articles, 0.02)
    encoder = load_tokenizer(folder).encoder
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    answer = [*encoder.encode(REMOVE_FIRST), 2]
    for step in range(steps):
        lines = articles[step % len(articles)][: 2 + step % 7]
        prompt = encoder.chunk_ids(None, Chunk(0, tuple(lines)), "compat")
        ids, labels = torch.tensor([prompt + answer]), torch.tensor([[-100] * len(prompt) + answer])
        model(input_ids=ids, labels=labels).loss.backward()
        if step % 4 == 3:
            optimizer.step()
            optimizer.zero_grad()
    model.eval().save_pretrained(folder)


@pytest.fixture(scope="module")
def models(tmp_path_factory, articles) -> dict[str, dict[str, str]]:
    """Recipe parts of both refinement stages."""
    parts = {}
    for stage, make in zip(STAGES, (make_document_model, make_chunk_model), strict=True):
        folder = tmp_path_factory.mktemp("models") / f"tiny-{stage}"
        folder.mkdir()
        make(folder, articles)
        assert (folder / "model.safetensors").exists()
        parts[stage] = {"backend": "transformers", "model": str(folder), "device": "cpu", "reuse_stored": False}
    return parts


def prepared(recipe, run_id: str) -> tuple[str, list[str]]:
    """Plans a run, takes it to where refinement starts, and returns the plan's URI and the shards."""
    chain.initialise([recipe.name])
    planned = chain.plan(recipe.model_dump(mode="json"), CRAWL, run_id)
    uri, shards = planned["plan"], planned["shards"]
    for stage in ("ingest", "clean"):
        for shard in shards:
            chain.run_shard(uri, stage, shard)
        chain.commit(uri, stage)
    chain.deduplicate(uri)
    return uri, shards


def child(uri: str, stage: str, shard: str) -> ChildJob:
    return ChildJob("corpusmill.runner.chain:run_shard", {"plan": uri, "stage": stage, "shard": shard})


def refine(uri: str, shards: list[str], run_one) -> None:
    for stage in STAGES:
        for shard in shards:
            run_one(uri, stage, shard)
        chain.commit(uri, stage)


def refined(recipe: str) -> dict[str, list[dict]]:
    lake = chain.open_lakehouse()
    return {name: lake.table(f"{recipe}.{name}").scan(None).sort_by("doc_id").to_pylist() for name in TABLES}


def test_children_write_the_rows_that_one_process_writes(home, recipe, models):
    uri, shards = prepared(recipe("inside", **models), "inside")
    refine(uri, shards, chain.run_shard)
    uri, shards = prepared(recipe("outside", **models), "outside")
    lines: list[str] = []
    refine(uri, shards, lambda *job: child(*job).run(lines.append))
    expected, found = refined("inside"), refined("outside")
    assert found == expected
    documents, chunks = (found[name] for name in TABLES)
    decisions = Counter(row["program"] for row in documents)
    assert set(decisions) == {"drop_doc()", "keep_doc()"}
    assert decisions.total() == 20
    assert len(chunks) == decisions["keep_doc()"]
    assert {program["output"] for row in chunks for program in row["programs"]} == {REMOVE_FIRST}
    assert all(row["n_chars_after"] < row["n_chars_before"] for row in chunks)
    assert [line for line in lines if "refine_chunks T-2024-10/00001: file 1 of 1" in line]


def test_a_child_killed_midway_is_a_transient_error_and_a_second_one_finishes_the_same_rows(home, recipe, models):
    whole = {"shards": {"max_shards": 1}, **models}
    uri, shards = prepared(recipe("inside", **whole), "inside")
    refine(uri, shards, chain.run_shard)
    uri, [shard] = prepared(recipe("outside", **whole), "outside")
    chain.run_shard(uri, "refine_documents", shard)
    chain.commit(uri, "refine_documents")
    victim, lines = child(uri, "refine_chunks", shard), []

    def kill_after_the_first_file(line: str) -> None:
        lines.append(line)
        if "file 1 of 2" in line:
            victim.kill()

    with pytest.raises(WorkerDiedError, match="SIGKILL") as caught:
        victim.run(kill_after_the_first_file)
    assert isinstance(caught.value, Transient)
    assert not [line for line in lines if "file 2 of 2" in line]
    lake = chain.open_lakehouse()
    plan = load_plan(lake, uri)
    assert (
        find_manifest(lake, "outside.chunk_refinements", plan.token("refine_chunks"), plan.shard(shard).identity)
        is None
    )
    with pytest.raises(MissingShardsError, match=r"missing \['00000-"):
        chain.commit(uri, "refine_chunks")

    report = child(uri, "refine_chunks", shard).run(lines.append)
    assert not report["skipped"]
    chain.commit(uri, "refine_chunks")
    assert refined("outside") == refined("inside")
    assert child(uri, "refine_chunks", shard).run(lines.append)["skipped"]


def test_a_second_child_goes_on_behind_the_programs_that_the_killed_one_had_written(home, recipe, models):
    parts = {stage: {**part, "reuse_stored": True} for stage, part in models.items()}
    uri, [shard] = prepared(recipe("resumed", shards={"max_shards": 1}, **parts), "resumed")
    chain.run_shard(uri, "refine_documents", shard)
    chain.commit(uri, "refine_documents")
    victim = child(uri, "refine_chunks", shard)
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        victim.run(lambda line: victim.kill() if "file 1 of 2" in line else None)
    second = child(uri, "refine_chunks", shard).run(lambda line: None)["metrics"]
    assert second["reused_cache"] >= 5
    assert second["model_calls"] >= 1, "the killed child had not seen the second file"
    assert second["model_calls"] + second["reused_cache"] == second["chunks"]


def test_a_task_process_whose_children_load_models_never_imports_torch(home, recipe, models):
    uri, shards = prepared(recipe("driven", **models), "driven")
    command = [sys.executable, "-c", DRIVER, uri, "refine_documents", *shards]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {"documents_in": 20, "heavy": []}
