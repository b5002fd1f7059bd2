"""A document that fills its sequences alone has the sums that scoring it as a document gives, and its end token's."""

import pyarrow as pa
import pytest
import torch

from corpusmill.pruning.config import ScoringConfig
from corpusmill.pruning.pack_stage import PackStage
from corpusmill.pruning.packing_config import PackingConfig
from corpusmill.pruning.scoring import ScoreStage
from corpusmill.pruning.sequence_sums import document_sums
from corpusmill.runner.inputs import sequence_units

LENGTH = 32


def text_of(tokenizer, text, n_tokens):
    """Returns the beginning of a text that has exactly so many tokens."""
    ids = tokenizer.encode_batch([text])[0][:n_tokens]
    short = tokenizer.decode(ids)
    assert len(tokenizer.encode_batch([short])[0]) == n_tokens
    return short


def test_whole_documents_get_their_own_sums_and_others_none(tiny_folder, tiny_model, tiny_tokenizer, repeated_text):
    texts = {
        "a": text_of(tiny_tokenizer, repeated_text, 3 * LENGTH - 1),
        "b": text_of(tiny_tokenizer, repeated_text, LENGTH + 5),
        "c": text_of(tiny_tokenizer, repeated_text, LENGTH + 40),
    }
    rows = pa.table({"doc_id": list(texts), "text": pa.array(list(texts.values()), pa.large_string())})
    packing = PackStage(PackingConfig(model=str(tiny_folder), length=LENGTH))
    sequences = pa.concat_tables([output.kept for output in packing.pack_file("C", "w", rows)])
    settings = {"model": str(tiny_folder), "context": LENGTH, "device": "cpu"}
    by_sequence = ScoreStage(ScoringConfig(unit="sequence", **settings))
    units = sequence_units(sequences).select(list(by_sequence.input_columns))
    sums = {row["doc_id"]: row for row in document_sums(sequences, by_sequence.process(units).kept).to_pylist()}

    document = pa.table({name: ["x"] for name in ("crawl", "warc_file", "language")})
    document = document.append_column("doc_id", pa.array(["a"])).append_column("text", pa.array([texts["a"]]))
    (alone,) = ScoreStage(ScoringConfig(**settings)).process(document).kept.to_pylist()
    last = torch.tensor([tiny_tokenizer.encode_batch([texts["a"]])[0][2 * LENGTH :]])
    with torch.inference_mode():
        end = -torch.log_softmax(tiny_model(input_ids=last).logits[0, -1].double(), -1)[tiny_tokenizer.eod_id].item()
    assert sums["a"]["n_scored"] == alone["n_scored"] + 1
    assert sums["a"]["n_bytes"] == alone["n_bytes"]
    assert sums["a"]["nll_sum"] == pytest.approx(alone["nll_sum"] + end, rel=1e-5)
    assert [sums[name]["nll_sum"] for name in ("b", "c")] == [None, None]
    assert sum(row["n_tokens"] for row in sums.values()) == sequences.num_rows * LENGTH
