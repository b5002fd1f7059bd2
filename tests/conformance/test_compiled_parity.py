"""The compiled rules decide and rewrite as datatrove 0.10.1 and measure as the Python definitions, on shared pages."""

import gzip
import importlib.util
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest

pytest.importorskip("numba")

from corpusmill.rules import c4, fineweb, gopher_quality, gopher_repetition
from corpusmill.rules.compiled.chunk_lexicon import ChunkLexicon
from corpusmill.rules.compiled.engine import CompiledRules
from corpusmill.rules.decision import first_reason
from corpusmill.rules.english_tokens import EnglishTokenizer
from corpusmill.rules.presets import PRESETS
from corpusmill.rules.segment import Segmenter

HERE = Path(__file__).resolve().parent


def _load(name):
    spec = importlib.util.spec_from_file_location(f"conformance_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


documents, parity, golden_maker = _load("rule_documents"), _load("rule_parity"), _load("make_rules_golden")
FINEWEB = PRESETS["fineweb"]
RULE_SETS = [name for name in FINEWEB.rule_sets if name != "url"]


@pytest.fixture(scope="module")
def golden():
    with gzip.open(golden_maker.GOLDEN, "rt") as stream:
        return {record["id"]: record for record in map(json.loads, stream)}


def _measured(texts):
    """Yields (text, measures, rewritten text), the last two None for what the Python definitions measure."""
    stored = [text.encode("utf-8", "replace").decode() for text in texts]
    rules = CompiledRules(RULE_SETS, FINEWEB.c4_lines, ChunkLexicon(EnglishTokenizer()))
    rest = iter(stored)
    for group in rules.measure(pa.array(stored, pa.large_string())):
        for k, usable in enumerate(group.usable):
            yield (next(rest), group.measures(k), group.text(k)) if usable else (next(rest), None, None)


def _chain(text, measures, rewritten):
    """Returns the verdict and text of the chain, in the form of the golden file."""
    for name in RULE_SETS:
        reason = first_reason([rule for rule in FINEWEB.rules if rule.rule_set == name], measures)
        if reason:
            return parity.as_datatrove(reason), documents.digest(rewritten if name == "fineweb" else text)
    return "keep", documents.digest(rewritten)


def _check(texts, golden):
    texts = list(texts)
    verdicts, wrong = Counter(), []
    for (reference, _, text), found in zip(texts, _measured([text for _, _, text in texts]), strict=True):
        expected = golden[reference]
        if found[1] is None or expected["chain"].startswith("raise:") or found[0] != text:
            verdicts["left out"] += 1
            continue
        verdicts[expected["chain"]] += 1
        if _chain(*found) != (expected["chain"], expected["chain_text"]):
            wrong.append(reference)
    assert not wrong, f"{len(wrong)} of {verdicts.total()} texts differ: {wrong[:5]}"
    return verdicts


@pytest.mark.slow
def test_fuzz_texts_get_the_verdicts_of_datatrove(golden):
    verdicts = _check(documents.fuzz_texts(documents.special_cases()), golden)
    assert verdicts.total() == documents.FUZZ_TEXTS
    assert verdicts["left out"] < 20
    assert len(verdicts) > 12


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_shared_document_gets_the_verdicts_of_datatrove(golden, shared_data):
    verdicts = _check(documents.shared_documents(shared_data), golden)
    assert verdicts.total() > 3000
    assert verdicts["left out"] < 20
    assert verdicts["keep"] > 500


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_shared_document_is_measured_by_definition(shared_data):
    segmenter, n = Segmenter(), 0
    for text, measures, rewritten in _measured([text for _, _, text in documents.shared_documents(shared_data)]):
        if measures is None:
            continue
        words = segmenter.words(text)
        by_c4 = c4.rewrite(text, FINEWEB.c4_lines, segmenter.n_sentences)
        expected = {
            **gopher_repetition.line_measures(text),
            **gopher_repetition.n_gram_measures(text, words.words),
            **gopher_quality.line_measures(text),
            **gopher_quality.word_measures(text, words),
            **by_c4.measures,
            **fineweb.line_measures(by_c4.text),
            **fineweb.word_measures(by_c4.text, segmenter.n_words(by_c4.text)),
        }
        assert measures == expected
        assert rewritten == by_c4.text
        n += 1
    assert n > 3000
