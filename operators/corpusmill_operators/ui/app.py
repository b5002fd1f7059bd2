"""The routes of the UI: every one that returns data asks Airflow whether the user may see it."""

import math
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from corpusmill_operators.ui.access import ReadableDags, may_see_run, may_see_task
from corpusmill_operators.ui.data_docs import data_docs_file
from corpusmill_operators.ui.explanation import explanation
from corpusmill_operators.ui.home_page import home_page
from corpusmill_operators.ui.run_page import run_page
from corpusmill_operators.ui.shard_page import shard_page
from corpusmill_operators.ui.static_files import ScriptsAndStyles

NO_STORE = {"Cache-Control": "private, no-store", "X-Content-Type-Options": "nosniff"}


def build_app() -> FastAPI:
    """Returns the application that Airflow's API server mounts under ``/corpus-quality``."""
    app = FastAPI(title="Corpus quality", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/home")
    def home(dag_ids: ReadableDags) -> Response:
        return _json(home_page(dag_ids))

    @app.get("/runs/{dag_id}/{run_id}", dependencies=[may_see_run])
    def run(dag_id: str, run_id: str) -> Response:
        return _json(run_page(dag_id, run_id))

    @app.get("/runs/{dag_id}/{run_id}/documents/{doc_id}", dependencies=[may_see_run])
    def document(dag_id: str, run_id: str, doc_id: str) -> Response:
        return _json(explanation(dag_id, run_id, doc_id))

    @app.get("/runs/{dag_id}/{run_id}/tasks/{task_id}/{map_index}", dependencies=[may_see_task])
    def shard(dag_id: str, run_id: str, task_id: str, map_index: int) -> Response:
        return _json(shard_page(dag_id, run_id, task_id, map_index))

    @app.get("/data-docs/{dag_id}/{crawl}/{epoch}/{path:path}", dependencies=[may_see_run])
    def data_docs(dag_id: str, crawl: str, epoch: int, path: str) -> Response:
        return data_docs_file(dag_id, crawl, epoch, path)

    app.mount("/static", ScriptsAndStyles(), name="static")
    return app


def _json(value: dict[str, Any]) -> Response:
    return JSONResponse(finite(value), headers=NO_STORE)


def finite(value: Any) -> Any:
    """Returns JSON values with null for numbers that JSON has no word for: reports of some runs hold NaN."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
