"""Our rules decide as datatrove 0.10.1: decisions, reasons, rewritten texts, measures, language, URLs, masked spans.

The golden file holds datatrove's verdicts on every shared document, on 2,000 fuzz texts and on URLs, as digests; the
last tests run datatrove itself where its environment is there.
"""

import gzip
import importlib.util
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from tldextract import TLDExtract

from corpusmill.rules.lists import entry_hash
from corpusmill.rules.url import UrlRules

HERE = Path(__file__).resolve().parent


def _load(name):
    spec = importlib.util.spec_from_file_location(f"conformance_{name}", HERE / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


documents, parity, golden_maker = _load("rule_documents"), _load("rule_parity"), _load("make_rules_golden")


@pytest.fixture(scope="module")
def ours():
    return parity.Ours()


@pytest.fixture(scope="module")
def golden():
    with gzip.open(golden_maker.GOLDEN, "rt") as stream:
        return {record["id"]: record for record in map(json.loads, stream)}


@pytest.fixture(scope="module")
def as_written_urls():
    return _url_rules(as_written=True)


def _url_rules(as_written):
    lists = documents.URL_LISTS
    hashes = {k: np.unique(np.array([entry_hash(e) for e in lists[k]], dtype=np.uint64)) for k in ("domains", "urls")}
    words = {k: frozenset(map(_normalised, lists[k])) for k in ("words", "soft_words", "subwords")}
    split = TLDExtract(cache_dir=None, suffix_list_urls=(), fallback_to_snapshot=True)
    return UrlRules(**hashes, **words, as_written=as_written, split=split)


def _normalised(word):
    return "".join(c for c in word if c.isascii() and c.isalnum()).lower()


def _check(ours, texts, golden):
    """Asserts that our verdicts equal the golden ones; returns how many were compared, by the chain's verdict."""
    chains, wrong = Counter(), []
    for reference, _, text in texts:
        expected = dict(golden.get(reference, {}))
        assert expected, f"{reference} is not in the golden file; run tests/conformance/make_rules_golden.py"
        assert expected.pop("digest") == documents.digest(text), f"{reference}: the text is not the golden one"
        expected.pop("id")
        found = parity.differences(parity.compact(ours.judge(text)), expected)
        chains[expected["chain"]] += 1
        if found:
            wrong.append((reference, found))
    assert not wrong, f"{len(wrong)} of {chains.total()} texts differ: {wrong[:5]}"
    return chains


@pytest.mark.slow
def test_fuzz_texts_get_the_verdicts_of_datatrove(ours, golden):
    chains = _check(ours, documents.fuzz_texts(documents.special_cases()), golden)
    assert chains.total() == documents.FUZZ_TEXTS
    assert len(chains) > 12  # the texts reach many rules


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_shared_document_gets_the_verdicts_of_datatrove(ours, golden, shared_data):
    chains = _check(ours, documents.shared_documents(shared_data), golden)
    assert chains.total() > 3000
    assert chains["keep"] > 500


def test_urls_get_the_verdicts_of_datatrove_when_compared_as_written(as_written_urls, golden):
    verdicts = Counter()
    for reference, url in documents.fuzz_urls():
        assert parity.judge_url(as_written_urls, url) == golden[reference]["url"], url
        verdicts[golden[reference]["url"]] += 1
    assert set(verdicts) >= {"keep", *(f"drop:{r}" for k, r in parity.DATATROVE_REASONS.items() if k[:3] == "url")}


def test_urls_of_shared_documents_get_the_verdicts_of_datatrove(as_written_urls, golden, shared_data):
    n = 0
    for reference, url, _ in documents.shared_documents(shared_data):
        if url and "#full" not in reference:
            expected = golden[f"url:{reference}"]
            assert expected["digest"] == documents.digest(url)
            assert parity.judge_url(as_written_urls, url) == expected["url"], reference
            n += 1
    assert n > 1000


def test_upper_case_does_not_escape_the_url_lists(as_written_urls):
    folded = _url_rules(as_written=False)
    assert parity.judge_url(as_written_urls, "http://good.org/PORN") == "keep"
    assert parity.judge_url(folded, "http://good.org/PORN") == "drop:hard_blacklisted"
    assert parity.judge_url(as_written_urls, "http://BAD-DOMAIN.com/") == "keep"
    assert parity.judge_url(folded, "http://BAD-DOMAIN.com/") == "drop:domain"


@pytest.fixture(scope="module")
def peers():
    if golden_maker.peers_python() is None:
        pytest.skip("no environment with datatrove; make one from benchmarks/peers.txt or set CORPUSMILL_PEERS_PYTHON")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_datatrove_itself_still_gives_the_golden_verdicts_on_fuzz_texts(peers, golden):
    records = [record for record in golden_maker.documents(None) if "url" in record or int(record["id"][5:]) % 8 == 0]
    _same_as_golden(golden_maker.run_oracle(records, documents.URL_LISTS), golden)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_datatrove_itself_still_gives_the_golden_verdicts_on_shared_documents(peers, golden, shared_data):
    some = list(documents.shared_documents(shared_data))[::40]
    records = [{"id": reference, "text": text} for reference, _, text in some if len(text) < 50_000]
    _same_as_golden(golden_maker.run_oracle(records, documents.URL_LISTS), golden)


def _same_as_golden(verdicts, golden):
    n = 0
    for verdict in verdicts:
        expected = {k: v for k, v in golden[verdict["id"]].items() if k not in ("id", "digest")}
        short = {"url": verdict["url"]} if "url" in verdict else parity.compact(verdict)
        assert short == expected, verdict["id"]
        n += 1
    assert n > 50
