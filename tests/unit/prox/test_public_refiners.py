"""Verification of the published refiners, on tiny models with their layout: Llama, tokenizer.model and nothing else."""

import gzip
import io
import itertools
import json
import random

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
sentencepiece = pytest.importorskip("sentencepiece")

from corpusmill.errors import ConfigError, PermanentDataError  # noqa: E402
from corpusmill.modeling.flops import n_parameters, n_without_embeddings  # noqa: E402
from corpusmill.prox.config import ChunkRefinementConfig, DocRefinementConfig  # noqa: E402
from corpusmill.prox.prompt_tokenizer import load_tokenizer  # noqa: E402
from corpusmill.prox.public_refiners import (  # noqa: E402
    N_COUNTED_PARAMETERS,
    N_PARAMETERS,
    PUBLIC_CONFIG,
    read_texts,
    stage_of,
    verify_public_refiner,
)
from corpusmill.prox.refiner import load_chunk_refiner, load_doc_refiner  # noqa: E402

WORDS = ["river", "water", "survey", "page", "home", "contact", "share", "print", "snow", "melt", "spring", "menu"]


def page(seed, n_lines=6):
    rng = random.Random(seed)
    return "\n".join(" ".join(rng.choices(WORDS, k=rng.randint(1, 9))) for _ in range(n_lines))


def write_tokenizer(folder):
    stream = io.BytesIO()
    lines = [page(seed, 1) for seed in range(300)]
    lines += ["drop_doc()", "keep_doc()", "keep_chunk()", "remove_lines(start=10, end=12)"] * 60
    lines += [f"[ {n}" for n in range(100)] + ["You are a helpful, respectful and honest assistant."] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=stream,
        model_type="bpe",
        vocab_size=480,
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=1.0,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(stream.getvalue())


def write_model(folder, answer, context=2048):
    """Saves a model that says one text after every prompt, by coordinates that only embeddings and head use."""
    folder.mkdir()
    write_tokenizer(folder)
    ids = [*load_tokenizer(folder).encoder.encode(answer), 2]
    assert len(set(ids)) == len(ids), "each token of the answer has one successor"
    torch.manual_seed(0)
    shape = {"vocab_size": 480, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    shape |= {"num_attention_heads": 4, "max_position_embeddings": context}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**PUBLIC_CONFIG | shape)).eval()
    embedding, head = model.get_input_embeddings().weight.data, model.get_output_embeddings().weight.data
    embedding[:, 0] = 10
    head[ids[0], 0] = 5
    for coordinate, (token, successor) in enumerate(itertools.pairwise(ids), start=1):
        embedding[token] = 0
        embedding[token, coordinate] = 50
        head[successor, coordinate] = 5
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def doc_folder(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("models") / "web-doc-refining-lm", "keep_doc()")


@pytest.fixture(scope="module")
def pages_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("pages") / "pages.jsonl.gz"
    rows = [{"text": page(seed)} for seed in range(3)] + [{"lines": page(9).split("\n")}, {"text": " \n"}]
    rows.append({"text": page(4, 600)})
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def outcomes(report):
    return {check.name: check.outcome for check in report.checks}


def values(report):
    return {check.name: check.value for check in report.checks}


def test_the_public_shape_has_the_published_numbers_of_parameters():
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**PUBLIC_CONFIG))
    assert (n_parameters(model), n_without_embeddings(model)) == (N_PARAMETERS, N_COUNTED_PARAMETERS)
    assert (N_PARAMETERS, N_COUNTED_PARAMETERS) == (354_284_800, 313_324_800)


def test_a_document_refiner_is_compared_with_what_is_known(doc_folder, pages_file):
    said = []
    report = verify_public_refiner(str(doc_folder), None, pages_file, device="cpu", progress=said.append)
    found = outcomes(report)
    assert found["files that the public models have"] == "passed"
    assert found["files that they lack"] == "passed"
    assert found["shape"] == "failed"
    assert found["parameters"] == "failed"
    assert found["ids of calls"] == "failed"
    assert found["prompts put together from lines"] == "passed"
    assert found["dtype of the stored weights"] == "passed"
    assert found["share of failures"] == "passed"
    assert found["answers that differ from `generate`, of 5"] == "passed"
    measured = values(report)
    assert measured["share of cut prompts"] == 0.2
    assert measured["answered by a call, cut prompts"] == 1.0
    assert measured["agreement, compat and sft prompts, whole"] == 1.0
    assert measured["agreement, float32 and bfloat16"] == 1.0
    assert not report.passed
    assert len(said) == len(report.checks)
    told = json.loads(json.dumps(report.as_dict()))
    assert told["n_pages"] == 5
    assert told["passed"] + told["failed"] + told["measured"] + told["skipped"] == len(told["checks"])


def test_a_chunk_refiner_is_asked_for_its_flags_and_argument_names(tmp_path, pages_file):
    folder = write_model(tmp_path / "math-chunk-refining-lm", "keep_chunk()")
    report = verify_public_refiner(str(folder), None, pages_file, n_pages=4, device="cpu")
    measured = values(report)
    assert measured["keep flags"] == {"keep_chunk": 4}
    assert measured["argument names"] == {}
    assert measured["calls per program"] == 1.0
    assert measured["share of failures"] == 0.0
    assert outcomes(report)["answers that differ from `generate`, of 4"] == "passed"


def test_a_model_that_writes_no_calls_fails(tmp_path, pages_file):
    folder = write_model(tmp_path / "web-chunk-refining-lm", "river page")
    report = verify_public_refiner(str(folder), None, pages_file, n_pages=2, device="cpu", dtypes=["float32"])
    assert outcomes(report)["share of failures"] == "failed"


def test_without_pages_only_files_and_tokenizer_are_looked_at(doc_folder, tmp_path):
    cases = tmp_path / "cases.jsonl"
    encoder = load_tokenizer(doc_folder).encoder
    right = {"id": 1, "stage": "prompt_doc", "input": "a  b", "ids": encoder.document_ids("a  b", "compat", 2000)[0]}
    lines = ["[000]river page", "[001]water"]
    chunk = {"id": 2, "stage": "prompt_chunk", "input": "\n".join(["[doc]", *lines, "[/doc]"]), "ids": [1, 1, 5]}
    cases.write_text("".join(json.dumps(case) + "\n" for case in (right, chunk, {"stage": "merge"})))
    report = verify_public_refiner(str(doc_folder), prompt_cases=cases)
    assert outcomes(report)["answers"] == "skipped"
    assert values(report)["official ids of 2 prompts: cases that differ"] == [2]


def test_the_stage_stands_in_the_name():
    assert stage_of("gair-prox/math-doc-refining-lm") == "documents"
    assert stage_of("/models/web-chunk-refining-lm/") == "chunks"
    with pytest.raises(ConfigError, match="neither 'doc' nor 'chunk'"):
        stage_of("/models/lm")


@pytest.mark.parametrize("row", ["{", '{"words": 1}', '{"lines": [1]}', "[]"])
def test_a_file_that_holds_no_pages_is_refused(tmp_path, row):
    path = tmp_path / "pages.jsonl"
    path.write_text(row)
    with pytest.raises(PermanentDataError, match=r"pages\.jsonl line 1.*expected"):
        read_texts(path, 5)


def test_a_kept_document_whose_prompt_was_cut_is_decoded_in_compat_mode(tmp_path):
    folder = write_model(tmp_path / "run-on", "keep_doc() drop")
    texts = [page(1), page(2, 300)]
    config = DocRefinementConfig(model=str(folder), mode="compat", max_prompt_tokens=200)
    whole, cut = load_doc_refiner(config).decide(texts)
    assert (whole.decision, whole.output, whole.truncated) == ("keep", "keep_doc()", False)
    assert (cut.decision, cut.output, cut.truncated) == ("drop", "keep_doc() drop", True)
    for other in ({"mode": "strict"}, {"threshold": 0.5}, {"prompt_ids": "sft"}):
        decisions = load_doc_refiner(config.model_copy(update=other)).decide(texts)
        assert [d.decision for d in decisions] == ["keep", "keep"]


def test_a_batch_beyond_the_memory_is_run_in_halves(doc_folder, monkeypatch):
    from corpusmill.prox import transformers_doc_refiner

    refiner = load_doc_refiner(DocRefinementConfig(model=str(doc_folder), max_prompt_tokens=300))
    texts = [page(seed) for seed in range(7)]
    expected = refiner.decide(texts)
    sizes, run = [], transformers_doc_refiner.last_logits

    def small_memory(model, prompts, pad):
        sizes.append(len(prompts))
        if len(prompts) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(model, prompts, pad)

    monkeypatch.setattr(transformers_doc_refiner, "last_logits", small_memory)
    found = refiner.decide(texts)
    assert [d.output for d in found] == [d.output for d in expected]
    assert max(sizes) == 7
    assert load_chunk_refiner(ChunkRefinementConfig(model=str(doc_folder))).split("river") != []
