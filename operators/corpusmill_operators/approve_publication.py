"""Approval: where a check warned, a person says whether the audited crawl is published."""

from typing import Any

from airflow.providers.standard.exceptions import HITLRejectException, HITLTimeoutError
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import Context

from corpusmill.errors import CorpusmillError, Permanent
from corpusmill_operators.base import StageOperator, crawl_of


class PublicationRejectedError(CorpusmillError, Permanent):
    """A person decided against publishing, or nobody decided in time."""


class ApprovePublicationOperator(StageOperator, ApprovalOperator):
    """Waits for a person under "Required Actions" of the run where validation warned; else passes at once.

    Reads: the outcome of validation. Writes: nothing; readers' data stays as it was while it waits, and it holds no
    worker. Fails at once: the person rejected, or did not answer within ``response_timeout``; the audit branch is kept
    for a look, and clearing this task asks again. Second run: asks again.
    """

    template_fields = (*StageOperator.template_fields, *ApprovalOperator.template_fields)
    ui_color = "#fdf3d7"
    counts_documents = False

    def __init__(self, *, subject: str = "Publish this crawl in spite of warnings?", **kwargs: Any) -> None:
        super().__init__(subject=subject, fail_on_reject=True, **kwargs)

    def work(self, context: Context) -> dict[str, Any]:
        """Returns at once where nothing warned; else the task waits for `execute_complete`."""
        from corpusmill.runner import chain

        outcome = chain.validation_outcome(self.plan or "")
        if not outcome["warnings"]:
            return {"approval": "not needed: no check warned"}
        lines = [f"Validation of **{crawl_of(context)}** passed with warnings:", ""]
        lines += [f"- {_plain(warning)}" for warning in outcome["warnings"]]
        self.body = "\n".join([*lines, "", "The tab *Corpus quality* of this run shows the funnel and examples."])
        return dict(ApprovalOperator.execute(self, context) or {})

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Goes on where the person approved.

        Raises:
            PublicationRejectedError: The person rejected, or nobody answered in time.
        """
        try:
            return super().execute_complete(context, event)
        except HITLRejectException:
            who = (event.get("responded_by_user") or {}).get("name") or "somebody"
            said = f"{who} rejected the publication"
        except HITLTimeoutError:
            said = f"nobody answered within {self.response_timeout}"
        error = PublicationRejectedError(
            f"{said}; nothing was published and the audit branch is kept. Clear this task to ask again, or run the "
            "crawl with another recipe"
        )
        self._leave_message(context, error)
        raise error


def _plain(text: str) -> str:
    """Returns a sentence that Markdown shows as it is written: it may quote a page."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>()#+-!|&" else c for c in " ".join(text.split()))
