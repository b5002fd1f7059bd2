import numpy as np
import pyarrow as pa

from corpusmill.batches import rows_to_table
from corpusmill.schema import CORPUS
from corpusmill.validation.metrics import corpus_metrics


def corpus_table(n, **columns):
    rows = [
        {
            "crawl": "C",
            "doc_id": f"id-{i}",
            "url": f"https://e.org/{i}",
            "language": "en",
            "text": "x" * (i + 1),
            "n_chars": i + 1,
            "n_tokens": i,
            "mean_nll": i / 10,
            "el2n": None,
            "dedup_digest": f"d{i}",
            "warc_file": "f",
            "warc_offset": i,
            "warc_length": 1,
            "recipe_fingerprint": "r",
        }
        | {name: values[i] for name, values in columns.items()}
        for i in range(n)
    ]
    return rows_to_table(rows, pa.schema([f.with_nullable(True) for f in CORPUS.schema]))


def test_counts_sums_and_nearest_rank_quantiles_are_exact():
    metrics = corpus_metrics([corpus_table(10)])
    assert metrics["n_documents"] == 10
    assert metrics["n_chars"] == 55
    assert metrics["n_tokens"] == 45
    assert (metrics["n_chars_p10"], metrics["n_chars_p50"], metrics["n_chars_p90"]) == (1, 5, 9)
    assert metrics["mean_nll_p90"] == 0.8
    assert metrics["el2n_p50"] is None
    assert metrics["nulls.el2n"] == 10
    assert metrics["nulls.text"] == 0


def test_duplicates_are_rows_beyond_the_first_even_across_batches():
    table = corpus_table(6, doc_id=["a", "a", "b", "c", "c", "c"], dedup_digest=["x", "y", "z", "x", "x", None])
    metrics = corpus_metrics([table.slice(0, 1), table.slice(1, 3), table.slice(4)])
    assert metrics["n_duplicate_doc_ids"] == 3
    assert metrics["n_duplicate_digests"] == 2
    assert metrics["nulls.dedup_digest"] == 1


def test_language_shares_sum_to_one_and_count_the_unidentified():
    metrics = corpus_metrics([corpus_table(4, language=["en", None, "de", "en"])])
    shares = {k: v for k, v in metrics.items() if k.startswith("language_share.")}
    assert shares == {"language_share.de": 0.25, "language_share.en": 0.5, "language_share.none": 0.25}


def test_order_and_size_of_batches_change_nothing():
    rng = np.random.default_rng(7)
    table = corpus_table(50, mean_nll=rng.normal(size=50).tolist(), el2n=rng.random(50).tolist())
    shuffled = table.take(rng.permutation(50))
    pieces = [shuffled.slice(i, 7) for i in range(0, 50, 7)]
    assert corpus_metrics(pieces) == corpus_metrics([table])


def test_an_empty_corpus_has_zero_documents_and_no_quantiles():
    for batches in ([], [CORPUS.schema.empty_table()]):
        metrics = corpus_metrics(batches)
        assert metrics["n_documents"] == 0
        assert metrics["n_duplicate_doc_ids"] == 0
        assert metrics["n_chars_p50"] is None
        assert metrics["nulls.text"] == 0


def test_a_missing_column_counts_as_null_and_scores_that_are_not_finite_are_left_out():
    table = corpus_table(3, mean_nll=[1.0, float("nan"), float("inf")]).drop_columns(["url", "language"])
    metrics = corpus_metrics([table])
    assert metrics["nulls.url"] == 3
    assert metrics["language_share.none"] == 1.0
    assert metrics["mean_nll_p90"] == 1.0
