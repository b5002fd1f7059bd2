"""Links on the page of a task. They are registered once, by ``plugins/corpusmill_plugin.py``."""

import re
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from airflow.sdk import BaseOperatorLink

from corpusmill_operators.ui.recipes import dag_of
from corpusmill_operators.ui.registration import PREFIX

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class DataDocsLink(BaseOperatorLink):
    """Opens the validation site of a run. It is evaluated in the task process, after `execute` has ended or failed."""

    name = "Data Docs"

    def get_link(self, operator: "BaseOperator", *, ti_key: "TaskInstanceKey") -> str:  # noqa: ARG002 - their interface
        """Returns the address of the site that `ValidateTableOperator` wrote, "" where it wrote none.

        Browsers follow no link to a local file, and the site quotes pages: a site of a run is opened through the UI's
        own route, which asks Airflow whether the user may see it. Other addresses stay as they are.
        """
        url: Any = getattr(operator, "data_docs_url", None)
        return served_address(str(url or ""))


_SITE = re.compile(r"/data_docs/(?P<recipe>[^/]+)/(?P<crawl>[^/]+)/epoch-(?P<epoch>\d+)/")


def served_address(url: str) -> str:
    """Returns the address under which the UI serves a run's Data Docs, given where the site lies."""
    found = _SITE.search(url) if url.startswith("file:") else None
    if found is None:
        return url
    dag_id, crawl = quote(dag_of(found["recipe"]), safe=""), quote(found["crawl"], safe="")
    return f"{_base_path()}{PREFIX}/data-docs/{dag_id}/{crawl}/{int(found['epoch'])}/index.html"


def _base_path() -> str:
    """Returns the path below which Airflow's UI is served, "" where it is the whole host."""
    from airflow.sdk.configuration import conf

    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/")
