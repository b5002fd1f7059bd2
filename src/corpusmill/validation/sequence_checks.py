"""The checks of packed sequences, as data: what a trainer that reads them relies on.

Metrics that the checks name, beside those of `corpusmill.validation.sequence_metrics`: ``assembled_sequences``, rows
the assembly wrote; ``branch_sequences``, rows the audit branch holds; ``packed_sequences``, rows that packing reports;
``n_tokens``, tokens of the published documents that stand in published sequences.
"""

from corpusmill.validation.config import CheckConfig

_PACK_AGAIN = "run the packing of this crawl again; nothing was published"


def packing_checks() -> tuple[CheckConfig, ...]:
    """Returns the contract after packing: metric checks only, for `corpusmill.validation.contract`."""
    return (
        _equal(
            "sequences.table_holds_what_shards_wrote", "n_sequences", "packed_sequences",
            "rows were lost or doubled between the workers and the table",
        ),
        *_shape(),
    )  # fmt: skip


def corpus_sequence_checks() -> tuple[CheckConfig, ...]:
    """Returns the audit's checks of the published sequences, all critical."""
    return (
        CheckConfig(
            name="corpus_sequences.not_empty",
            kind="metric_between",
            subject="n_sequences",
            minimum=1,
            why="an empty table would replace the crawl's sequences by nothing",
            todo="look at the funnel; a crawl with less text than one sequence in each file has none",
        ),
        _equal(
            "corpus_sequences.branch_holds_what_was_assembled", "assembled_sequences", "branch_sequences",
            "rows were lost or doubled between the workers and the audit branch",
        ),
        _equal(
            "corpus_sequences.all_rows_were_measured", "n_sequences", "branch_sequences",
            "the checks must cover every row of the audit branch",
        ),
        *_shape(),
        _zero(
            "corpus_sequences.owners_are_published", "n_owners_not_published",
            "tokens of a document that the corpus does not hold cannot be traced or taken back",
        ),
        _zero(
            "corpus_sequences.documents_have_a_sequence", "n_documents_without_sequence",
            "the corpus says which documents the sequences are made of, and no other",
        ),
        _equal(
            "corpus_sequences.tokens_agree", "n_tokens", "n_sequence_tokens",
            "every published token belongs to one published document",
        ),
    )  # fmt: skip


def _shape() -> tuple[CheckConfig, ...]:
    return (
        _zero(
            "sequences.have_one_length", "n_sequences_of_other_length",
            "a batch of sequences is a rectangle; another length cannot be trained or scored with the rest",
        ),
        _zero(
            "sequences.spans_cover_each_once_in_order", "n_sequences_with_gaps",
            "a token without an owner cannot be explained, one with two would be counted twice",
        ),
        _zero(
            "sequences.unique_id", "n_duplicate_sequence_ids",
            "two rows with one id would share a score",
        ),
    )  # fmt: skip


def _zero(name: str, subject: str, why: str) -> CheckConfig:
    return CheckConfig(
        name=name, kind="metric_between", subject=subject, minimum=0, maximum=0, why=why, todo=_PACK_AGAIN
    )


def _equal(name: str, subject: str, other: str, why: str) -> CheckConfig:
    return CheckConfig(name=name, kind="metrics_equal", subject=subject, other=other, why=why, todo=_PACK_AGAIN)
