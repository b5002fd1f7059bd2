"""Builds the audit branch of ``corpus``: the crawl's new partition, and what it takes over from newer crawls.

The default policy keeps the copy of the oldest crawl. So when a backfilled older crawl is published, newer crawls that
hold copies of its documents are assembled again, from their stored tables, on the same branch: readers see both changes
in one snapshot, or neither.
"""

import logging
from dataclasses import dataclass, replace
from typing import Any

from corpusmill.batches import Column
from corpusmill.config import fingerprint
from corpusmill.dedup.crawl_order import crawl_order
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.commit import commit_partition
from corpusmill.lakehouse.epochs import current_epoch
from corpusmill.lakehouse.publish import create_audit_branch, drop_audit_branch
from corpusmill.lakehouse.shards import RunToken, ShardWriter, find_manifest
from corpusmill.runner.assemble import corpus_groups
from corpusmill.runner.deduplicate import find_duplicates, removed_ids
from corpusmill.runner.plan import BaseCrawl, RunPlan, load_plan, published_base, rebased
from corpusmill.runner.records import read_record, record_uri, write_record
from corpusmill.runner.select import decide_selection
from corpusmill.runner.stage_tables import input_table, stage_table

log = logging.getLogger(__name__)
REASSEMBLED = "reassembled"


@dataclass(frozen=True)
class AuditBranch:
    """A branch that waits for its audit.

    Attributes:
        name: Branch name, ``audit_<crawl>_<epoch>``.
        tokens: Commit identity of each crawl whose partition the branch replaces.
        rows: Rows that were written for each crawl on the branch.
        retracted: Documents that each newer crawl gives up to this one.
        plan: The plan on the deduplication base that the branch was built on.
    """

    name: str
    tokens: dict[str, RunToken]
    rows: dict[str, int]
    retracted: dict[str, int]
    plan: RunPlan


def provenance_uri(lake: Lakehouse, recipe: str, crawl: str, key: str) -> str:
    """Returns where the plan that a corpus partition was assembled from is named, by the partition's content key."""
    return record_uri(lake, recipe, crawl, "corpora", f"{key}.json")


def branch_name(plan: RunPlan) -> str:
    """Returns the name of the run's audit branch."""
    return f"audit_{plan.crawl}_{plan.epoch}"


def build_audit_branch(lake: Lakehouse, plan: RunPlan) -> AuditBranch:
    """Makes the branch from main's head and commits the crawl and its retractions to it.

    Where older crawls were published since the run was planned, the crawl is deduplicated, selected and assembled
    again on the present base first; no model is needed for that.
    """
    base = published_base(lake, plan.name, plan.crawl)
    across = plan.parsed_recipe().deduplication.across_crawls
    current = plan if not across or base == plan.base else rebased(plan, base)
    corpus = f"{plan.name}.corpus"
    if branch_name(plan) in lake.table(corpus).refs():
        drop_audit_branch(lake, corpus, branch_name(plan))
    branch = create_audit_branch(lake, corpus, plan.crawl, plan.epoch)
    token, n_rows = _commit_crawl(lake, plan, current, branch)
    tokens, rows, retracted = {plan.crawl: token}, {plan.crawl: n_rows}, {}
    if across:
        newer_base = [*base, BaseCrawl(crawl=plan.crawl, key=tokens[plan.crawl].key)]
        for crawl in _newer_crawls(lake, plan):
            before = lake.table(corpus).count({"crawl": crawl})
            tokens[crawl], rows[crawl] = _commit_newer(lake, plan, crawl, newer_base, branch)
            retracted[crawl] = max(0, before - rows[crawl])
            newer_base.append(BaseCrawl(crawl=crawl, key=tokens[crawl].key))
    branch_made = AuditBranch(branch, tokens, rows, retracted, current)
    write_record(lake, branch_uri(lake, plan), _to_record(branch_made))
    return branch_made


def branch_uri(lake: Lakehouse, plan: RunPlan) -> str:
    """Returns where the description of a run's audit branch is stored."""
    return record_uri(lake, plan.name, plan.crawl, f"epoch-{plan.epoch:05d}", "branch.json")


def stored_branch(lake: Lakehouse, plan: RunPlan) -> AuditBranch:
    """Returns the audit branch that the run built last."""
    record = read_record(lake, branch_uri(lake, plan))
    tokens = {crawl: RunToken(**values) for crawl, values in record["tokens"].items()}
    return AuditBranch(record["name"], tokens, record["rows"], record["retracted"], RunPlan.load(record["plan"]))


def source_plan(lake: Lakehouse, recipe: str, crawl: str, key: str) -> RunPlan:
    """Returns the plan whose stored tables a corpus partition was assembled from, by the partition's content key."""
    return load_plan(lake, read_record(lake, provenance_uri(lake, recipe, crawl, key))["plan"])


def _to_record(branch: AuditBranch) -> dict[str, Any]:
    return {
        "name": branch.name,
        "plan": branch.plan.model_dump(mode="json"),
        "tokens": {crawl: vars(t) | {"versions": dict(t.versions)} for crawl, t in branch.tokens.items()},
        "rows": branch.rows,
        "retracted": branch.retracted,
    }


def _commit_crawl(lake: Lakehouse, planned: RunPlan, current: RunPlan, branch: str) -> tuple[RunToken, int]:
    """Commits the run's own crawl to the branch: its shards, or a new assembly where the base has moved."""
    place = stage_table(planned, "assemble")
    if current.keys["corpus"] == planned.keys["corpus"]:
        token = planned.token("corpus")
        write_record(lake, provenance_uri(lake, planned.name, planned.crawl, token.key), {"plan": planned.uri(lake)})
        manifests = [find_manifest(lake, place.identifier, token, s.name) for s in planned.shards]
        found = [m for m in manifests if m is not None]
        names = [s.name for s in planned.shards]
        result = commit_partition(
            lake, place.identifier, place.partition, found, token, branch=branch, expected_shards=names
        )
        return token, result.rows
    log.info("crawl %s is assembled again: older crawls were published since it was planned", planned.crawl)
    return _reassemble(lake, planned, current, branch)


def _newer_crawls(lake: Lakehouse, plan: RunPlan) -> list[str]:
    crawls = [p["crawl"] for p in lake.table(f"{plan.name}.corpus").partitions()]
    return sorted((c for c in crawls if crawl_order(c) > crawl_order(plan.crawl)), key=crawl_order)


def _commit_newer(
    lake: Lakehouse, plan: RunPlan, crawl: str, base: list[BaseCrawl], branch: str
) -> tuple[RunToken, int]:
    """Assembles a newer published crawl on its new base; returns its token and rows."""
    key = lake.table(f"{plan.name}.corpus").partition_key({"crawl": crawl})
    newer = source_plan(lake, plan.name, crawl, str(key))
    return _reassemble(lake, newer, rebased(newer, base), branch)


def _reassemble(lake: Lakehouse, stored: RunPlan, current: RunPlan, branch: str) -> tuple[RunToken, int]:
    """Writes a crawl's partition on the branch from its stored tables and the present deduplication base."""
    corpus = f"{stored.name}.corpus"
    duplicates = find_duplicates(lake, current, ref=branch)  # the branch holds the base, main may not yet
    removed = removed_ids(duplicates)
    token = _token(lake, stored, current, removed)
    selection = decide_selection(lake, stored, removed)
    rows = 0
    with ShardWriter(lake.table(corpus), {"crawl": stored.crawl}, token, REASSEMBLED) as writer:
        for _, group in corpus_groups(lake, stored, stored.files, duplicates=removed, selection=selection):
            if group.num_rows:
                writer.write(group)
                rows += group.num_rows
        manifest = writer.finish({})
    commit_partition(
        lake, corpus, {"crawl": stored.crawl}, [manifest], token,
        branch=branch, expected_shards=[REASSEMBLED],
    )  # fmt: skip
    log.info("crawl %s was assembled again: %d documents", stored.crawl, rows)
    return token, rows


def _token(lake: Lakehouse, stored: RunPlan, current: RunPlan, removed: Column) -> RunToken:
    """Returns the identity of a new assembly.

    Where the new base gives back documents that were duplicates before, the model stages never saw them: the content
    is then marked as partial, so that a run of that crawl does not take it for its own result.
    """
    table, partition = input_table(lake, stored, "deduplicate")
    old = set(removed_ids(table.scan(partition, columns=["doc_id", "kept"])).to_pylist())
    given_back = old - set(removed.to_pylist())
    key = current.keys["corpus"]
    if given_back:
        log.warning(
            "%d documents of %s are no longer duplicates but were never refined; run that crawl again to admit them",
            len(given_back), stored.crawl,
        )  # fmt: skip
        key = fingerprint([key, "partial", len(given_back)])
    write_record(lake, provenance_uri(lake, stored.name, stored.crawl, key), {"plan": stored.uri(lake)})
    # The newest epoch, not the stored plan's: a run of that crawl that is under way deduplicates against us when it
    # publishes, so it need not stop us, nor we it.
    epoch, _ = current_epoch(lake, stored.name, stored.crawl)
    return replace(stored.token("corpus"), key=key, epoch=max(epoch, stored.epoch))
