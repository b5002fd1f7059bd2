"""Signatures are bit for bit those of datatrove 0.10.1 on shared documents, fuzz texts and boundary texts."""

import gzip
import hashlib
import importlib.util
import json
from pathlib import Path

import pyarrow as pa
import pytest

pytest.importorskip("numba")

from corpusmill.dedup.minhash import Signer, has_signature

HERE = Path(__file__).resolve().parent


def _load(name):
    spec = importlib.util.spec_from_file_location(f"conformance_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


maker, documents = _load("make_minhash_golden"), _load("rule_documents")


@pytest.fixture(scope="module")
def golden():
    with gzip.open(maker.GOLDEN, "rt") as stream:
        return {(reference, digest): signature for reference, digest, signature in map(json.loads, stream)}


def _digests(engine, texts):
    """Returns 16 hex digits over each signature, None where there is none."""
    found = Signer(engine=engine).signatures(pa.array(texts, pa.large_string()))
    pairs = zip(found.astype("<u8"), has_signature(found), strict=True)
    return [hashlib.blake2b(row.tobytes(), digest_size=8).hexdigest() if signed else None for row, signed in pairs]


def _check(engine, texts, golden):
    texts = list(texts)
    found = _digests(engine, [text for _, text in texts])
    expected = [golden[reference, documents.digest(text)] for reference, text in texts]
    wrong = [texts[k][0] for k in range(len(texts)) if found[k] != expected[k]]
    assert not wrong, f"{len(wrong)} of {len(texts)} signatures differ: {wrong[:5]}"
    return sum(signature is not None for signature in found)


@pytest.mark.parametrize("engine", ["compiled", "reference"])
def test_made_texts_get_the_signatures_of_datatrove(engine, golden):
    texts = list(maker.made_texts())
    some = texts if engine == "compiled" else texts[:200]
    assert _check(engine, some, golden) > len(some) // 2


@pytest.mark.slow
def test_every_shared_document_gets_the_signature_of_datatrove(golden, shared_data):
    assert _check("compiled", maker.shared_texts(shared_data), golden) > 3000


@pytest.mark.slow
def test_datatrove_itself_gives_our_values_on_made_texts(golden):
    if maker.peers_python() is None:
        pytest.skip("no peers' environment; make peers builds it")
    texts = list(maker.made_texts())[:400]
    assert maker.run_oracle([text for _, text in texts]) == _digests("compiled", [text for _, text in texts])
    assert [golden[reference, documents.digest(text)] for reference, text in texts] == _digests(
        "compiled", [text for _, text in texts]
    )
    ten = [text for _, text in texts[:20]]
    values = Signer(engine="compiled").signatures(pa.array(ten, pa.large_string())).tolist()
    found = maker.run_oracle(ten, "--values")
    assert [value for value in found if value] == [row for row, value in zip(values, found, strict=True) if value]
