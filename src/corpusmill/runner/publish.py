"""Publishes a validated audit branch, rebasing where another crawl was published in between."""

import logging
from typing import Any

from corpusmill.errors import CommitConflict, ValidationFailedError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.epochs import check_epoch
from corpusmill.lakehouse.publish import BranchRefusedError, MainMovedError
from corpusmill.lakehouse.publish import publish as publish_branch
from corpusmill.lakehouse.table import UnknownRefError
from corpusmill.runner.audit import AuditBranch, build_audit_branch, stored_branch
from corpusmill.runner.plan import RunPlan
from corpusmill.runner.records import read_record, record_uri, write_record
from corpusmill.runner.sequence_release import publish_sequences
from corpusmill.runner.validate import audit, audited_content, metrics_uri, validation_uri

log = logging.getLogger(__name__)

MAX_REBASES = 10
"""Rebases before publication gives up; each means that another crawl was published in between."""


def commit_audit_branch(lake: Lakehouse, plan: RunPlan) -> dict[str, Any]:
    """Builds the audit branch, for `validate` and `publish`."""
    branch = build_audit_branch(lake, plan)
    return {"branch": branch.name, "retracted": branch.retracted}


def _require_audit(lake: Lakehouse, plan: RunPlan, branch: AuditBranch) -> None:
    """Refuses a branch that failed its audit; audits one that was built after the last audit."""
    outcome = read_record(lake, validation_uri(lake, plan))
    if outcome["audited"] != audited_content(branch):
        outcome = audit(lake, plan)
    if not outcome["passed"]:
        raise ValidationFailedError(f"branch {branch.name!r} failed its audit and cannot be published; see 'validate'")


def publication_uri(lake: Lakehouse, plan: RunPlan) -> str:
    """Returns where the outcome of a run's publication is stored."""
    return record_uri(lake, plan.name, plan.crawl, f"epoch-{plan.epoch:05d}", "publication.json")


def store_publication(lake: Lakehouse, plan: RunPlan, outcome: dict[str, Any]) -> None:
    """Stores the outcome of a run's publication for its report."""
    write_record(lake, publication_uri(lake, plan), outcome)


def publish(lake: Lakehouse, plan: RunPlan) -> dict[str, Any]:
    """Fast-forwards main to the audited branch and tags it ``<recipe>/<crawl>/<epoch>``.

    Where main has moved since the branch was made, the branch is built and audited again on the new head, so that two
    crawls published at the same time both survive and leave no duplicate across them.

    Returns:
        ``published`` (documents of this crawl), ``snapshot``, ``tag``, ``retracted`` (per newer crawl), ``rebases``;
        ``sequences`` (of this crawl) too where the recipe packs them.

    Raises:
        CommitConflict: Main kept moving.
        SupersededError: A newer run took over this recipe and crawl.
        ValidationFailedError: The rebased branch failed its audit.
    """
    corpus, tag = f"{plan.name}.corpus", f"{plan.name}/{plan.crawl}/{plan.epoch}"
    for rebases in range(MAX_REBASES):
        check_epoch(lake, plan.token("corpus"))
        branch = stored_branch(lake, plan)
        try:
            _require_audit(lake, plan, branch)
            result = publish_branch(lake, corpus, branch.name, tag, branch.tokens)
        except (MainMovedError, BranchRefusedError, UnknownRefError) as error:
            log.info("%s is built and audited again: %s", branch.name, error)
            build_audit_branch(lake, plan)
            audit(lake, plan)
            continue
        sequences = {}
        if plan.packs_sequences:
            tokens = dict(branch.tokens)
            sequences = {"sequences": publish_sequences(lake, plan, branch.name, tokens, result.tag or tag)}
        outcome = {
            "published": lake.table(corpus).count({"crawl": plan.crawl}),
            "snapshot": str(result.snapshot_id),
            "tag": result.tag or tag,
            "retracted": branch.retracted,
            "rebases": rebases,
            **sequences,
        }
        store_publication(lake, plan, outcome)
        metrics = read_record(lake, validation_uri(lake, plan))["metrics"]
        write_record(lake, metrics_uri(lake, plan.name, plan.crawl), metrics)  # what later crawls are compared with
        return outcome
    raise CommitConflict(
        f"{corpus}: main moved {MAX_REBASES} times while {plan.crawl} was being published; run 'publish' again "
        "when fewer runs publish at the same time"
    )
