"""Publishes ``corpus_sequences`` beside ``corpus``: the same crawls, under keys that follow from the corpus's keys.

Two tables cannot change in one commit. The corpus goes first, because it is what later crawls are deduplicated against
and what decides which of two runs wins; the sequences follow it. A crawl is published when both hold it: until then a
run finds that it has work left, whoever died in between. The tag on ``corpus_sequences`` comes last, so a reader of a
tag sees a whole release (decision 0007).
"""

import logging
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.batches import Column
from corpusmill.errors import CommitConflict
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.commit import commit_partition
from corpusmill.lakehouse.publish import (
    BranchRefusedError,
    MainMovedError,
    create_audit_branch,
    drop_audit_branch,
)
from corpusmill.lakehouse.publish import publish as publish_branch
from corpusmill.lakehouse.shards import RunToken
from corpusmill.lakehouse.table import UnknownRefError
from corpusmill.pruning.sequence_sums import document_sums, holding
from corpusmill.runner.assemble_sequences import SPAN_COLUMNS
from corpusmill.runner.inputs import without
from corpusmill.runner.plan import RunPlan, sequences_key
from corpusmill.runner.stage_tables import input_table
from corpusmill.schema import CORPUS, CORPUS_SEQUENCES, SCORES

log = logging.getLogger(__name__)

ATTEMPTS = 10
"""Times that the branch is put on a new head before publication gives up."""


def sequences_token(token: RunToken) -> RunToken:
    """Returns the identity under which the sequences of a corpus partition are committed."""
    return replace(token, key=sequences_key(token.key))


def sequences_holding(lake: Lakehouse, plan: RunPlan, documents: Column) -> Column:
    """Returns the ids of a crawl's packed sequences with a token of one of the documents, in order of the ids."""
    table, partition = input_table(lake, plan, "pack")
    found: list[str] = []
    for _, rows in table.iter_groups(partition, groups=plan.files, columns=list(SPAN_COLUMNS)):
        found += [str(i) for i in holding(rows, documents).to_pylist()]
    return pa.chunked_array([sorted(found)], pa.large_string())


def remaining_with_sequences(
    lake: Lakehouse, stored: RunPlan, taken: Column, branch: str
) -> dict[str, Iterator[pa.Table]]:
    """Returns a crawl's published rows of both tables, less the documents with the given digests.

    A sequence with a token of such a document goes, and with it the documents that no other sequence holds.
    """
    partition = {"crawl": stored.crawl}
    corpus, packed = lake.table(f"{stored.name}.corpus"), lake.table(f"{stored.name}.corpus_sequences")

    def pairs() -> Iterator[tuple[pa.Table, pa.Table]]:
        documents = corpus.iter_groups(partition, groups=stored.files, columns=CORPUS.schema.names, ref=branch)
        names = CORPUS_SEQUENCES.schema.names
        sequences = packed.iter_groups(partition, groups=stored.files, columns=names, ref=branch)
        for (_, rows), (_, held) in zip(documents, sequences, strict=True):
            out = rows.filter(pc.is_in(rows["dedup_digest"], value_set=taken.combine_chunks()))["doc_id"]
            units = held.rename_columns({"sequence_id": "doc_id"})
            left = without(units, holding(held, out)).rename_columns({"doc_id": "sequence_id"})
            yield _owners(rows, left), left

    return {"corpus": (rows for rows, _ in pairs()), "corpus_sequences": (left for _, left in pairs())}


def _owners(documents: pa.Table, sequences: pa.Table) -> pa.Table:
    """Returns the rows of the documents that sequences hold a token of, with the number of their tokens in these."""
    held = document_sums(sequences, SCORES.schema.empty_table())
    rows = documents.filter(pc.is_in(documents["doc_id"], value_set=held["doc_id"].combine_chunks()))
    n_tokens = held["n_tokens"].take(pc.index_in(rows["doc_id"], value_set=held["doc_id"].combine_chunks()))
    place = rows.schema.get_field_index("n_tokens")
    return rows.set_column(place, rows.schema.field(place), n_tokens)


def publish_sequences(lake: Lakehouse, plan: RunPlan, branch: str, tokens: dict[str, RunToken], tag: str) -> int:
    """Publishes the sequences of the crawls that the corpus has just got; returns how many the run's own crawl has.

    Args:
        lake: The lakehouse.
        plan: The run.
        branch: Name of the audit branch, the same as the corpus's.
        tokens: The corpus's token of each crawl on the branch.
        tag: Release tag, the same as the corpus's.

    Raises:
        CommitConflict: Main kept moving.
        SupersededError: A newer run took over this recipe and crawl.
    """
    table = f"{plan.name}.corpus_sequences"
    wanted = tokens
    for _ in range(ATTEMPTS):
        try:
            publish_branch(lake, table, branch, tag, {c: sequences_token(t) for c, t in wanted.items()})
            return lake.table(table).count({"crawl": plan.crawl})
        except (MainMovedError, BranchRefusedError) as error:
            log.info("%s of %s is put on the new head: %s", branch, table, error)
            wanted = _restand(lake, plan, branch, wanted)
    raise CommitConflict(
        f"{table}: main moved {ATTEMPTS} times while {plan.crawl} was being published; run 'publish' again when fewer "
        "runs publish at the same time"
    )


def _restand(lake: Lakehouse, plan: RunPlan, branch: str, tokens: dict[str, RunToken]) -> dict[str, RunToken]:
    """Builds the branch anew on main's head from the same files; returns the tokens of what is still to be published.

    A crawl whose corpus another run has published since is left to that run.
    """
    table, corpus = f"{plan.name}.corpus_sequences", lake.table(f"{plan.name}.corpus")
    if branch not in lake.table(table).refs():
        raise UnknownRefError(f"{table} has no branch {branch!r}; run the crawl again from 'plan'")
    files = {crawl: lake.table(table).data_files({"crawl": crawl}, ref=branch) for crawl in tokens}
    ours = {c: t for c, t in tokens.items() if corpus.partition_key({"crawl": c}) == t.key}
    drop_audit_branch(lake, table, branch)
    create_audit_branch(lake, table, plan.crawl, plan.epoch)
    for crawl, token in ours.items():
        commit_partition(lake, table, {"crawl": crawl}, files[crawl], sequences_token(token), branch=branch)
    return ours
