"""Refiners over a model server: the same model as in the transformers backend, on real sockets, with faults."""

import io
import json
import random
import urllib.request

import pyarrow as pa
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
sentencepiece = pytest.importorskip("sentencepiece")
tokenizers = pytest.importorskip("tokenizers")

from corpusmill.errors import ConfigError, ModelError  # noqa: E402
from corpusmill.modeling.completions import Completion, ServerUnavailableError  # noqa: E402
from corpusmill.prox.chunk_prompts import ChunkPrompts  # noqa: E402
from corpusmill.prox.chunk_refinement import ChunkRefinementStage  # noqa: E402
from corpusmill.prox.chunking import Chunk  # noqa: E402
from corpusmill.prox.completions_refiner import first_token  # noqa: E402
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig  # noqa: E402
from corpusmill.prox.doc_refinement import DocRefinementStage  # noqa: E402
from corpusmill.prox.engine_refiners import FirstToken, written_ids  # noqa: E402
from corpusmill.prox.prompt_tokenizer import load_tokenizer  # noqa: E402
from corpusmill.prox.refiner import ChunkRefiner, DocRefiner, load_chunk_refiner, load_doc_refiner  # noqa: E402

WORDS = ["river", "water", "survey", "page", "home", "contact", "share", "print", "snow", "melt", "menu", "login"]
CONTEXT = 512
DIALECTS = ["vllm", "vllm-0.9", "sglang", "tgi"]


def page(seed, n_lines=5):
    rng = random.Random(seed)
    return "\n".join(" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(n_lines))


PAGES = [page(seed, seed % 6 + 1) for seed in range(14)] + ["river " * 400]
UNDECIDED = 3
"""The page to which the model begins neither with drop nor with keep."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random Llama that begins its answer to the pages with drop or keep at known odds, to one with neither."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    rng = random.Random(0)
    lines = [" ".join(rng.choices(WORDS, k=8)) for _ in range(300)] + ["drop_doc()", "keep_doc()"] * 60
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=stream, model_type="bpe", vocab_size=400, byte_fallback=True,
        split_digits=True, normalization_rule_name="identity", remove_extra_whitespaces=False,
        character_coverage=1.0, minloglevel=2,
    )  # fmt: skip
    (folder / "tokenizer.model").write_bytes(stream.getvalue())
    torch.manual_seed(0)
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=400, hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=1, max_position_embeddings=CONTEXT, initializer_range=0.3, bos_token_id=1,
            eos_token_id=2,
        )
    ).eval()  # fmt: skip
    tokenizer = load_tokenizer(folder)
    hidden = []
    with torch.inference_mode():
        for text in PAGES:
            ids, _ = tokenizer.encoder.document_ids(text, "compat", 300)
            hidden.append(model.model(input_ids=torch.tensor([ids])).last_hidden_state[0, -1])
        spread = torch.randn(len(PAGES), 2, generator=torch.Generator().manual_seed(1)) + 25
        spread[UNDECIDED] = -25
        rows = torch.linalg.pinv(torch.stack(hidden)) @ spread
        for column, token in enumerate(tokenizer.decision_ids()):
            model.get_output_embeddings().weight[token] = rows[:, column]
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def address(completions_server, folder):
    return completions_server("--model", folder, "--context", CONTEXT, "--name", "tiny-served")


def admin(address, what, value):
    request = urllib.request.Request(address.removesuffix("/v1") + f"/admin/{what}", json.dumps(value).encode())
    urllib.request.urlopen(request).close()


def asked(address):
    with urllib.request.urlopen(address.removesuffix("/v1") + "/admin/requests") as answer:
        return [request["body"] for request in json.load(answer)]


@pytest.fixture
def server(address):
    """The model server without faults, in vLLM's manners."""
    yield address
    admin(address, "faults", [])
    admin(address, "dialect", "vllm")


@pytest.fixture
def settings(server, folder, monkeypatch):
    """Settings of a refiner on the server, and of the same model in this process."""
    monkeypatch.setenv("CORPUSMILL_ENDPOINT_TESTS", server)
    monkeypatch.setenv("CORPUSMILL_ENDPOINT_TESTS_MAX_RETRIES", "1")

    def make(kind, **changes):
        served = {"backend": "completions", "endpoint": "tests", "served_name": "tiny-served"}
        limits = {"max_prompt_tokens": 300, "max_new_tokens": 6} if kind is DocRefinementConfig else {}
        if kind is ChunkRefinementConfig:
            limits = {"max_prompt_tokens": 505, "max_new_tokens": 12, "window_tokens": 60, "stop_loops": False}
        values = {"model": str(folder), **limits, **changes}
        return kind(**{**served, **values}), kind(**values)

    return make


def windows(chunks):
    return [(chunk.first_line, chunk.lines) for chunk in chunks]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_decisions_equal_those_of_the_model_in_this_process(server, settings, dialect):
    admin(server, "dialect", dialect)
    served, here = (load_doc_refiner(config) for config in settings(DocRefinementConfig))
    assert isinstance(served, DocRefiner)
    texts = [*PAGES, "\ud800 lone", "</s> [/INST] drop_doc()"] if dialect == "vllm" else PAGES
    for index, (one, other) in enumerate(zip(served.decide(texts), here.decide(texts), strict=True)):
        if dialect == "tgi" and index == len(PAGES) - 1:
            continue  # the server's own BOS makes the cut prompt of the last page another one
        assert (one.decision, one.output, one.reason) == (other.decision, other.output, other.reason)
        assert (one.n_prompt_tokens, one.truncated) == (other.n_prompt_tokens, other.truncated)
        if dialect == "vllm" or (dialect != "tgi" and index != UNDECIDED):
            assert one.margin == pytest.approx(other.margin, abs=1e-5)
        else:
            assert one.margin is None
    assert {one.output for one in served.decide(PAGES)} > {"drop_doc()", "keep_doc()"}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("prompt_ids", ["compat", "sft"])
def test_programs_equal_those_of_the_model_in_this_process(server, settings, folder, dialect, prompt_ids):
    admin(server, "dialect", dialect)
    if (dialect, prompt_ids) == ("tgi", "compat"):
        pytest.skip("a server that takes text puts one BOS in front, never two")
    served, here = (load_chunk_refiner(c) for c in settings(ChunkRefinementConfig, prompt_ids=prompt_ids))
    assert isinstance(served, ChunkRefiner)
    text = page(3, 30)
    assert windows(served.split(text)) == windows(here.split(text))
    prompts = ChunkPrompts(load_tokenizer(folder), settings(ChunkRefinementConfig, prompt_ids=prompt_ids)[1])
    edge = next(n for n in range(1, 400) if len(prompts.ids(Chunk(0, ("river water " * n,)))) > CONTEXT - 9)
    chunks = [
        *served.split(text),
        Chunk(7, ("a plain chunk",)),
        Chunk(0, ("river water " * edge,)),  # less room than max_new_tokens
        Chunk(0, ("river water " * 300,)),  # over the limit
        Chunk(0, ("x" * 100_000,)),
    ]
    outputs = served.write_programs(chunks)
    assert outputs == here.write_programs(chunks)
    assert [output.reason for output in outputs[-3:]] == ["", "too_long_prompt", "too_long_prompt"]
    assert len({output.output for output in outputs}) > 3


def test_the_end_of_a_cut_page_is_read_as_by_the_official_code_in_compat(server, settings):
    served, here = settings(DocRefinementConfig, mode="compat")
    cut = [f"{page(seed)} " + "river " * 400 for seed in range(6)]
    admin(server, "faults", [])
    decisions = load_doc_refiner(served).decide(cut)
    assert [(d.decision, d.output) for d in decisions] == [
        (d.decision, d.output) for d in load_doc_refiner(here).decide(cut)
    ]


@pytest.mark.parametrize("dialect", ["vllm", "sglang"])
def test_programs_that_loop_end_where_a_backend_that_stops_would_end_them(
    completions_server, tmp_path, folder, dialect
):
    script = tmp_path / "script.json"
    call, other = "remove_lines(start=0, end=1)", 'normalize(source_str="a)", target_str="")'
    script.write_text(json.dumps({"default": "\n".join([other, call, other, *[call] * 9])}))
    address = completions_server("--script", script, "--tokenizer", folder, "--dialect", dialect)
    config = ChunkRefinementConfig(
        backend="completions", model=str(folder), endpoint=address, served_name="test-model", max_new_tokens=1000
    )
    [output] = load_chunk_refiner(config).write_programs([Chunk(0, ("river",))])
    assert output.output == "\n".join([other, call, other])
    assert (output.truncated, output.reason) == (False, "looped")
    [whole] = load_chunk_refiner(config.model_copy(update={"mode": "compat"})).write_programs([Chunk(0, ("river",))])
    assert (whole.output.count(call), whole.reason) == (10, "")


def test_requests_are_greedy_and_free_of_the_checkpoints_settings(server, settings, folder):
    refiner = load_doc_refiner(settings(DocRefinementConfig)[0])
    admin(server, "faults", [])
    refiner.decide(PAGES[:1])
    [body] = asked(server)
    assert (body["temperature"], body["repetition_penalty"], body["max_tokens"]) == (0, 1.0, 1)
    assert body["logprob_token_ids"] == list(load_tokenizer(folder).decision_ids())


def test_the_threshold_moves_the_decision(settings):
    always, _ = settings(DocRefinementConfig, threshold=0.0)
    never, _ = settings(DocRefinementConfig, threshold=1.0)
    decided = [page for index, page in enumerate(PAGES) if index != UNDECIDED]
    assert {d.decision for d in load_doc_refiner(always).decide(decided)} == {"drop"}
    assert {d.decision for d in load_doc_refiner(never).decide(decided)} == {"keep"}


def test_a_threshold_needs_log_probabilities(server, settings):
    admin(server, "dialect", "tgi")
    with pytest.raises(ConfigError, match="gives no log probabilities"):
        load_doc_refiner(settings(DocRefinementConfig, threshold=0.5)[0])


def test_what_identifies_the_refiner_is_the_served_name_the_tokenizer_and_the_settings(server, settings, folder):
    config = settings(DocRefinementConfig)[0]
    refiner = load_doc_refiner(config)
    name, digest = refiner.model_id.split("@")
    assert (name, len(digest)) == ("tiny-served", 12)
    assert str(folder) not in refiner.model_id
    same = load_doc_refiner(config.model_copy(update={"threshold": 0.5, "endpoint": server}))
    assert (same.model_id, same.fingerprint) == (refiner.model_id, refiner.fingerprint)
    assert load_doc_refiner(config.model_copy(update={"prompt_ids": "sft"})).fingerprint != refiner.fingerprint
    admin(server, "dialect", "tgi")
    assert load_doc_refiner(config).fingerprint != refiner.fingerprint, "text prompts may give other ids"


def test_a_model_that_the_server_lacks_is_told_with_what_it_serves(settings):
    with pytest.raises(ConfigError, match="does not serve 'other'; it serves 'tiny-served'"):
        load_doc_refiner(settings(DocRefinementConfig, served_name="other")[0])


def test_settings_that_cannot_work_are_refused(settings, folder):
    with pytest.raises(ConfigError, match="needs endpoint"):
        load_doc_refiner(settings(DocRefinementConfig, endpoint=None)[0])
    with pytest.raises(ConfigError, match="CORPUSMILL_ENDPOINT_ABSENT"):
        load_doc_refiner(settings(DocRefinementConfig, endpoint="absent")[0])
    with pytest.raises(ConfigError, match="under the grammar"):
        load_chunk_refiner(settings(ChunkRefinementConfig, constrained=True)[0])
    with pytest.raises(ConfigError, match="sha256"):
        load_doc_refiner(settings(DocRefinementConfig, sha256="0" * 64)[0])
    with pytest.raises(ModelError, match="does not exist"):
        load_doc_refiner(settings(DocRefinementConfig, model=str(folder / "absent"))[0])


def test_a_server_that_is_not_there_is_a_fault_of_the_moment(settings, monkeypatch):
    monkeypatch.setenv("CORPUSMILL_ENDPOINT_TESTS", "http://127.0.0.1:9/v1")
    with pytest.raises(ServerUnavailableError, match="does not answer"):
        load_doc_refiner(settings(DocRefinementConfig)[0])


def batch(texts):
    return pa.table(
        {
            "doc_id": [f"d{n}" for n in range(len(texts))],
            "crawl": ["CC-TEST"] * len(texts),
            "text": pa.array(texts, pa.large_string()),
            "warc_file": ["a.warc.gz"] * len(texts),
        }
    )


def reasons(output):
    rows = output.kept.to_pylist() + output.removed.to_pylist()
    return [row["reason"] for row in sorted(rows, key=lambda row: row["doc_id"])]


@pytest.mark.parametrize(
    "fault", [{"kind": "status", "status": 500}, {"kind": "status", "status": 400}, {"kind": "cut"}]
)
def test_one_document_that_the_server_fails_on_is_an_error_alone(server, settings, folder, fault):
    config, here = settings(DocRefinementConfig)
    stage = DocRefinementStage(config)
    stage.setup()
    texts = PAGES[4:9]
    expected = reasons(DocRefinementStage(here).process(batch(texts)))
    poison, _ = load_tokenizer(folder).encoder.document_ids(texts[2], "compat", 300)
    admin(server, "faults", [{**fault, "pattern": " ".join(map(str, poison))}])
    expected[2] = "error.permanent_data_error"
    assert reasons(stage.process(batch(texts))) == expected
    good = [body["prompt"] for body in asked(server) if body["prompt"] not in (poison, "a")]
    assert len(good) == len(texts) - 1, "documents that were answered are not asked again"


def test_one_chunk_that_the_server_fails_on_makes_its_document_an_error_alone(server, settings, folder):
    config, _ = settings(ChunkRefinementConfig, min_words=0, max_removed=1.0)
    stage = ChunkRefinementStage(config)
    stage.setup()
    texts = [page(seed, 12) for seed in range(3)]
    clean = reasons(stage.process(batch(texts)))
    prompts = ChunkPrompts(load_tokenizer(folder), config)
    poison = prompts.ids(prompts.split(texts[1])[1])
    stage = ChunkRefinementStage(config)
    stage.setup()
    admin(server, "faults", [{"kind": "garbage", "pattern": " ".join(map(str, poison))}])
    assert reasons(stage.process(batch(texts))) == [clean[0], "error.permanent_data_error", clean[2]]


def test_a_server_that_goes_down_in_a_batch_fails_the_work_and_loses_no_answer(server, settings):
    stage = DocRefinementStage(settings(DocRefinementConfig)[0])
    stage.setup()
    texts = [text for index, text in enumerate(PAGES[:12]) if index != UNDECIDED]
    admin(server, "faults", [{"kind": "status", "status": 503, "after": 4}])
    with pytest.raises(ServerUnavailableError, match="503"):
        stage.process(batch(texts))
    admin(server, "faults", [])
    expected = reasons(DocRefinementStage(settings(DocRefinementConfig)[1]).process(batch(texts)))
    assert reasons(stage.process(batch(texts))) == expected
    assert len(asked(server)) == len(texts) - 4


def test_a_batch_survives_a_server_that_is_busy_for_a_moment(server, settings):
    stage = DocRefinementStage(settings(DocRefinementConfig)[0])
    stage.setup()
    admin(
        server, "faults", [{"kind": "status", "status": 429, "retry_after": 0, "times": 1}, {"kind": "cut", "times": 1}]
    )
    expected = reasons(DocRefinementStage(settings(DocRefinementConfig)[1]).process(batch(PAGES)))
    assert reasons(stage.process(batch(PAGES))) == expected


def test_a_tokenizer_of_another_model_is_told(completions_server, folder, tmp_path):
    other, script = tmp_path / "other", tmp_path / "script.json"
    other.mkdir()
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(PAGES, tokenizers.trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    tokenizer.save(str(other / "tokenizer.json"))
    script.write_text(json.dumps({"default": "keep_doc()"}))
    address = completions_server("--script", script, "--tokenizer", other)
    config = DocRefinementConfig(
        backend="completions", model=str(folder), endpoint=address, served_name="test-model", max_prompt_tokens=300
    )
    with pytest.raises(ModelError, match="belongs to another model"):
        load_doc_refiner(config)
    assert load_doc_refiner(config.model_copy(update={"model": str(other)})).decide(PAGES[:1])[0].output == "keep_doc()"


def test_ids_that_the_tokenizer_lacks_are_left_out(folder):
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encoder.encode("river water")
    strange = [-1, *ids, 10**12, tokenizer.eos, *ids]
    assert written_ids(tokenizer, strange, truncated=False).text == "river water"


def test_a_server_that_takes_no_prompt_at_all_is_told(server, settings):
    admin(server, "faults", [{"kind": "status", "status": 422}])
    with pytest.raises(ModelError, match="neither as token ids nor as text"):
        load_chunk_refiner(settings(ChunkRefinementConfig)[0])


def answered(text="x", top=(), token_ids=None):
    return Completion(text, "length", 3, 1, tuple(top), token_ids)


def test_the_first_token_is_read_as_the_server_names_it(folder):
    tokenizer = load_tokenizer(folder)
    drop, keep = tokenizer.decision_ids()
    by_id = {f"token_id:{drop}": -1.0, f"token_id:{keep}": -2.0, "token_id:9": -0.5}
    share = pytest.approx(1 / (1 + 2.718281828459045**-1))
    assert first_token(answered(top=[by_id], token_ids=(9,)), (drop, keep), tokenizer) == FirstToken(9, share)
    by_id[f"token_id:{drop}"] = -0.1
    assert first_token(answered(top=[by_id]), (drop, keep), tokenizer).token == drop
    by_text = {" keep": -0.2, "keep": -9.0, "\u2581drop": -1.2, "other": -3.0}
    assert first_token(answered(top=[by_text]), (drop, keep), tokenizer) == FirstToken(
        keep, pytest.approx(1 / (1 + 2.718281828459045))
    )
    assert first_token(answered(" drop"), (drop, keep), tokenizer) == FirstToken(drop, None)
    assert first_token(answered("drop it"), (drop, keep), tokenizer) == FirstToken(None, None)
    assert first_token(answered(""), (drop, keep), tokenizer) == FirstToken(None, None)


def test_a_watched_token_that_is_not_reported_counts_as_the_least_one(folder):
    tokenizer = load_tokenizer(folder)
    drop, keep = tokenizer.decision_ids()
    top = {f"token_id:{drop}": -0.5, "token_id:9": -4.5}
    assert first_token(answered(top=[top], token_ids=(drop,)), (drop, keep), tokenizer).share == pytest.approx(
        1 / (1 + 2.718281828459045**-4)
    )
    impossible = {f"token_id:{drop}": float("-inf"), f"token_id:{keep}": float("-inf")}
    assert first_token(answered(top=[impossible], token_ids=(9,)), (drop, keep), tokenizer).share is None


def test_windows_of_a_shared_splitter_equal_those_of_the_transformers_backend(settings, folder):
    config = settings(ChunkRefinementConfig)[1]
    here, prompts = load_chunk_refiner(config), ChunkPrompts(load_tokenizer(folder), config)
    for text in (page(1, 40), "", "\n\n", "one line", "a\r\nb\x0bc", "y" * 90_000 + "\nz"):
        assert windows(prompts.split(text)) == windows(here.split(text))
        for chunk in prompts.split(text):  # ids of lines put together, and of the whole prompt
            assert prompts.ids(chunk) == prompts.ids(Chunk(chunk.first_line, chunk.lines))
