"""The compiled engine signs anything as the definition does; MinHash estimates the similarity."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("numba")

from corpusmill.dedup.minhash import Signer
from corpusmill.dedup.similarity import similarities
from corpusmill.dedup.simplification import simplify

# Characters whose simplified form depends on others, digits of many scripts, marks, separators, U+FFFD.
ODD = (
    "\u03a3\u03c3\u0130\u0131\u212a\u212b\u1e9e\ufb01\u00bd\u0301\u0323\u0345\u302e\u1715\u0661\u066b\u060c\u2396\uff11"
    "\u0967\U0001d7d8\U00010d40\U00011f50\ufffd\ufeff\u00ad\u200b\u200d\u180e\u3000\u2028\x85\xa0\x1c\x00\ud55c\u1fef\u037e"
    "\U0001d15e\U0001f600\U00020000\U0002f800\U000e0100\u0f77\u0958\uac00\u1100\u1161"
)
PIECES = st.one_of(
    st.sampled_from(
        ["a", "the", "cant", "im", "u", "s", "C++", "1.5", "1,2,3", "...", "'tis", "5pm", "\ud55c\uad6d", "x0"]
    ),
    st.text(st.one_of(st.sampled_from(ODD), st.sampled_from("ab1.,- \n'")), max_size=6),
    st.text(max_size=5),
)
TEXTS = st.lists(PIECES, max_size=30).map(" ".join) | st.text(max_size=80)


@pytest.fixture(scope="module")
def signers():
    return Signer(engine="compiled"), Signer(engine="reference")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXTS | st.none(), max_size=6))
def test_both_engines_agree_in_every_value(signers, texts):
    storable = [text if text is None else text.encode("utf-8", "replace").decode() for text in texts]
    column = pa.array(storable, pa.large_string())
    compiled, reference = (signer.signatures(column) for signer in signers)
    assert compiled.tolist() == reference.tolist()


@settings(max_examples=200, deadline=None)
@given(TEXTS, TEXTS)
def test_simplification_works_chunk_by_chunk(left, right):
    assert simplify(f"{left} {right}") == f"{simplify(left)} {simplify(right)}".strip()
    assert simplify(" ".join(left.split())) == simplify(left)


def test_agreeing_values_estimate_the_similarity(signers):
    rng = np.random.default_rng(3)
    words = [f"w{chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(400)]
    texts = []
    for swapped in (0, 4, 12, 30, 80):
        changed = list(words)
        for k in rng.choice(len(words), swapped, replace=False):
            changed[k] = "other"
        texts.append(" ".join(changed))
    column = pa.array(texts, pa.large_string())
    found = signers[0].signatures(column)
    exact = similarities(column, np.array([[0, k] for k in range(5)]), signers[0].shingler)
    estimated = (found == found[0]).mean(axis=1)
    assert exact[0] == 1.0
    assert (np.diff(exact) < 0).all()
    assert np.abs(exact - estimated).max() < 0.15
