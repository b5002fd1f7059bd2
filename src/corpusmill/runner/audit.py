"""Builds the audit branch of ``corpus``: the crawl's new partition, and what it takes over from newer crawls.

The default policy keeps the copy of the oldest crawl. So when a backfilled older crawl is published, newer crawls that
hold copies of its documents are assembled again, from their stored tables, on the same branch: readers see both changes
in one snapshot, or neither. Under ``first_published`` no crawl gives up anything.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from corpusmill.config import fingerprint
from corpusmill.dedup.crawl_order import crawls_after
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.commit import commit_partition
from corpusmill.lakehouse.epochs import current_epoch
from corpusmill.lakehouse.publish import create_audit_branch, drop_audit_branch
from corpusmill.lakehouse.shards import RunToken, ShardWriter, find_manifest
from corpusmill.runner.assemble import corpus_groups
from corpusmill.runner.assemble_sequences import sequence_groups
from corpusmill.runner.deduplicate import find_duplicates, kept_documents, removed_ids
from corpusmill.runner.plan import BaseCrawl, RunPlan, published_base, rebased
from corpusmill.runner.provenance import provenance_uri, source_plan
from corpusmill.runner.published_content import published_content
from corpusmill.runner.records import read_record, record_uri, write_record
from corpusmill.runner.select import decide_selection
from corpusmill.runner.sequence_release import remaining_with_sequences, sequences_holding, sequences_token
from corpusmill.runner.stage_tables import (
    MODEL_STAGES,
    committed,
    input_table,
    published_stages,
    stage_table,
    stages_committed,
)
from corpusmill.schema import CORPUS

log = logging.getLogger(__name__)
REASSEMBLED = "reassembled"


class Committed(NamedTuple):
    """A crawl on a branch: the token of its corpus, and the rows written by table name."""

    token: RunToken
    rows: dict[str, int]


@dataclass(frozen=True)
class AuditBranch:
    """A branch that waits for its audit.

    Attributes:
        name: Branch name, ``audit_<crawl>_<epoch>``.
        tokens: Commit identity of each crawl whose partition the branch replaces.
        rows: Rows that were written for each crawl on the branch.
        retracted: Documents that each newer crawl gives up to this one.
        plan: The plan on the deduplication base that the branch was built on.
        sequences: Rows that were written for each crawl on the branch of the same name of ``corpus_sequences``; none
            where the recipe packs no sequences.
    """

    name: str
    tokens: dict[str, RunToken]
    rows: dict[str, int]
    retracted: dict[str, int]
    plan: RunPlan
    sequences: dict[str, int] = field(default_factory=dict)


def branch_name(plan: RunPlan) -> str:
    """Returns the name of the run's audit branch."""
    return f"audit_{plan.crawl}_{plan.epoch}"


def build_audit_branch(lake: Lakehouse, plan: RunPlan) -> AuditBranch:
    """Makes the branch from main's head and commits the crawl and its retractions to it.

    Where older crawls were published since the run was planned, the crawl is deduplicated, selected and assembled
    again on the present base first; no model is needed for that.
    """
    deduplication = plan.parsed_recipe().deduplication
    across = deduplication.compares_crawls
    corpus = f"{plan.name}.corpus"
    for table in [stage_table(plan, stage).identifier for stage in published_stages(plan)]:
        if branch_name(plan) in lake.table(table).refs():
            drop_audit_branch(lake, table, branch_name(plan))
    if plan.packs_sequences:
        create_audit_branch(lake, f"{plan.name}.corpus_sequences", plan.crawl, plan.epoch)
    branch = create_audit_branch(lake, corpus, plan.crawl, plan.epoch)
    # Read after the branch was made: what is published later moves main, and publishing the branch is then refused.
    base = published_base(lake, plan.name, plan.crawl, deduplication.survivor)
    current = plan if not across or base == plan.base else rebased(plan, base)
    done = {plan.crawl: _commit_crawl(lake, plan, current, branch)}
    retracted = {}
    if across:
        newer_base = [*base, BaseCrawl(crawl=plan.crawl, key=done[plan.crawl].token.key)]
        published = [p["crawl"] for p in lake.table(corpus).partitions()]
        for crawl in crawls_after(plan.crawl, published, deduplication.survivor):
            before = lake.table(corpus).count({"crawl": crawl})
            done[crawl] = _commit_newer(lake, plan, crawl, newer_base, branch)
            retracted[crawl] = max(0, before - done[crawl].rows["corpus"])
            newer_base.append(BaseCrawl(crawl=crawl, key=done[crawl].token.key))
    branch_made = AuditBranch(
        branch,
        {crawl: made.token for crawl, made in done.items()},
        {crawl: made.rows["corpus"] for crawl, made in done.items()},
        retracted,
        current,
        {crawl: made.rows["corpus_sequences"] for crawl, made in done.items() if plan.packs_sequences},
    )
    write_record(lake, branch_uri(lake, plan), _to_record(branch_made))
    return branch_made


def already_published(lake: Lakehouse, plan: RunPlan) -> bool:
    """Returns whether the run has nothing to do: its corpus is published and the stage tables are those behind it.

    The tables behind it are those of the plan that it was assembled from, on whatever deduplication base.
    """
    if not all(committed(lake, plan, stage) for stage in published_stages(plan)):
        return False
    return stages_committed(lake, source_plan(lake, plan.name, plan.crawl, plan.keys["corpus"]))


def branch_uri(lake: Lakehouse, plan: RunPlan) -> str:
    """Returns where the description of a run's audit branch is stored."""
    return record_uri(lake, plan.name, plan.crawl, f"epoch-{plan.epoch:05d}", "branch.json")


def stored_branch(lake: Lakehouse, plan: RunPlan) -> AuditBranch:
    """Returns the audit branch that the run built last."""
    record = read_record(lake, branch_uri(lake, plan))
    tokens = {crawl: RunToken(**values) for crawl, values in record["tokens"].items()}
    plan_of_branch = RunPlan.load(record["plan"])
    sequences = record.get("sequences", {})
    return AuditBranch(record["name"], tokens, record["rows"], record["retracted"], plan_of_branch, sequences)


def _to_record(branch: AuditBranch) -> dict[str, Any]:
    return {
        "name": branch.name,
        "plan": branch.plan.model_dump(mode="json"),
        "tokens": {crawl: vars(t) | {"versions": dict(t.versions)} for crawl, t in branch.tokens.items()},
        "rows": branch.rows,
        "retracted": branch.retracted,
        "sequences": branch.sequences,
    }


def _commit_crawl(lake: Lakehouse, planned: RunPlan, current: RunPlan, branch: str) -> Committed:
    """Commits the run's own crawl to the branch: its shards, or a new assembly where the base has moved."""
    if current.keys["corpus"] == planned.keys["corpus"]:
        token = planned.token("corpus")
        _note_provenance(lake, planned, token.key, planned.base)
        places = {stage_table(planned, stage).key_name: stage for stage in published_stages(planned)}
        return Committed(token, {name: _commit_shards(lake, planned, s, branch) for name, s in places.items()})
    log.info("crawl %s is assembled again: other crawls were published since it was planned", planned.crawl)
    return _reassemble(lake, planned, current, branch)


def _commit_shards(lake: Lakehouse, plan: RunPlan, stage: str, branch: str) -> int:
    """Commits what the shards of an assembly wrote to the branch; returns the rows."""
    place = stage_table(plan, stage)
    token, names = plan.token(place.key_name), [s.identity for s in plan.shards]
    manifests = [find_manifest(lake, place.identifier, token, name) for name in names]
    found = [m for m in manifests if m is not None]
    result = commit_partition(
        lake, place.identifier, place.partition, found, token, branch=branch, expected_shards=names
    )
    return result.rows


def _commit_newer(lake: Lakehouse, plan: RunPlan, crawl: str, base: list[BaseCrawl], branch: str) -> Committed:
    """Assembles a newer published crawl on its new base."""
    key = lake.table(f"{plan.name}.corpus").partition_key({"crawl": crawl})
    newer = source_plan(lake, plan.name, crawl, str(key))
    if not stages_committed(lake, newer):
        return _retract(lake, newer, base, branch)
    return _reassemble(lake, newer, rebased(newer, base), branch)


def _retract(lake: Lakehouse, stored: RunPlan, base: list[BaseCrawl], branch: str) -> Committed:
    """Takes from a newer crawl what the base holds, where its stage tables hold something else by now.

    That is so after a run of that crawl with other settings which was not published. Its published rows are all there
    is to go by: they lose their duplicates and nothing is selected anew, so the content is marked as partial.
    """
    corpus = lake.table(f"{stored.name}.corpus")
    older = [corpus.scan({"crawl": b.crawl}, columns=["dedup_digest"], ref=branch)["dedup_digest"] for b in base]
    if stored.parsed_recipe().deduplication.near is not None:
        from corpusmill.runner.near_duplicates import near_published  # numba, where it is needed

        older.append(near_published(lake, stored, base, branch))
    taken = pa.chunked_array([chunk for column in older for chunk in column.chunks], pa.large_string())
    key = fingerprint([stored.keys["corpus"], "retracted", [[b.crawl, b.key] for b in base]])
    log.warning(
        "the stage tables of %s no longer hold what it was published from; its duplicates are retracted, and nothing "
        "is selected anew: run that crawl again", stored.crawl,
    )  # fmt: skip
    if stored.packs_sequences:
        return _write(lake, stored, key, remaining_with_sequences(lake, stored, taken, branch), branch, base)

    def remaining() -> Iterator[pa.Table]:
        columns = CORPUS.schema.names
        groups = corpus.iter_groups({"crawl": stored.crawl}, groups=stored.files, columns=columns, ref=branch)
        for _, rows in groups:
            yield rows.filter(pc.invert(pc.is_in(rows["dedup_digest"], value_set=taken.combine_chunks())))

    return _write(lake, stored, key, {"corpus": remaining()}, branch, base)


def _reassemble(lake: Lakehouse, stored: RunPlan, current: RunPlan, branch: str) -> Committed:
    """Writes a crawl's partition on the branch from its stored tables and the present deduplication base.

    Where the new base gives back documents that were duplicates before, the model stages never saw them: they stay out,
    and the content is marked as partial, so that a run of that crawl does not take it for its own result. The same is
    done where a document is retracted whose tokens are in a packed sequence: the sequence goes as a whole.
    """
    found = find_duplicates(lake, current, kept_documents(lake, current), ref=branch)
    removed = set(removed_ids(found).to_pylist())  # the branch holds the base
    key = current.keys["corpus"]
    if any(current.recipe[stage] is not None for stage in MODEL_STAGES):
        table, partition = input_table(lake, stored, "deduplicate")
        before = set(removed_ids(table.scan(partition, columns=["doc_id", "kept"])).to_pylist())
        if given_back := sorted(str(i) for i in before - removed):
            log.warning(
                "%d documents of %s are no longer duplicates, but no model saw them: run that crawl again",
                len(given_back), stored.crawl,
            )  # fmt: skip
            key = fingerprint([key, "partial", given_back])
            removed |= before
    out = pa.chunked_array([sorted(str(i) for i in removed)], pa.large_string())
    units = out
    if stored.packs_sequences:
        units = sequences_holding(lake, stored, out)
        if len(units):
            log.warning("%d sequences of %s hold retracted documents: run that crawl again", len(units), stored.crawl)
            key = fingerprint([key, "partial sequences", sorted(str(i) for i in units.to_pylist())])
    selection = decide_selection(lake, stored, units)
    groups = corpus_groups(lake, stored, stored.files, duplicates=out, selection=selection)
    contents = {"corpus": (rows for _, rows in groups)}
    if stored.packs_sequences:
        kept = sequence_groups(lake, stored, stored.files, retracted=out, selection=selection)
        contents["corpus_sequences"] = (rows for _, rows in kept)
    return _write(lake, stored, key, contents, branch, current.base)


def _note_provenance(lake: Lakehouse, stored: RunPlan, key: str, base: Sequence[BaseCrawl]) -> None:
    """Notes under the key of a crawl's content which plan's tables it comes from and what it was compared with."""
    record: dict[str, Any] = {"plan": stored.uri(lake), "base": [b.model_dump(mode="json") for b in base]}
    if stored.parsed_recipe().deduplication.survivor == "first_published":
        corpus = lake.table(f"{stored.name}.corpus")
        there = [b.crawl for b in base if corpus.partition_key({"crawl": b.crawl}) == b.key]
        record["contents"] = {crawl: published_content(corpus, crawl) for crawl in there}
    write_record(lake, provenance_uri(lake, stored.name, stored.crawl, key), record)


def _write(
    lake: Lakehouse,
    stored: RunPlan,
    key: str,
    contents: Mapping[str, Iterator[pa.Table]],
    branch: str,
    base: Sequence[BaseCrawl],
) -> Committed:
    """Commits a crawl's rows to the branch under a key, and notes which plan's tables they come from.

    Args:
        lake: The lakehouse.
        stored: The plan whose tables were assembled.
        key: Content key of the corpus partition; that of its sequences follows from it.
        contents: Rows by table name: ``corpus``, and ``corpus_sequences`` where the recipe packs them.
        branch: The audit branch.
        base: The crawls that its documents gave way to.
    """
    partition = {"crawl": stored.crawl}
    _note_provenance(lake, stored, key, base)
    # The newest epoch, not the stored plan's: a run of that crawl that is under way deduplicates against us when it
    # publishes, so it need not stop us, nor we it.
    epoch, _ = current_epoch(lake, stored.name, stored.crawl)
    token = replace(stored.token("corpus"), key=key, epoch=max(epoch, stored.epoch))
    rows = {}
    for name, groups in contents.items():
        table, of_table = f"{stored.name}.{name}", token if name == "corpus" else sequences_token(token)
        with ShardWriter(lake.table(table), partition, of_table, REASSEMBLED) as writer:
            for part in groups:
                writer.write(part)
            manifest = writer.finish({})
        commit_partition(lake, table, partition, [manifest], of_table, branch=branch, expected_shards=[REASSEMBLED])
        rows[name] = manifest.rows
    log.info("crawl %s was assembled again: %d documents", stored.crawl, rows["corpus"])
    return Committed(token, rows)
