"""What the plugin registers: the mounted application, the tabs and the panel.

Every Airflow process loads the plugin, task processes too, so the application and what it imports are made by the first
request and nothing is loaded before.
"""

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

PREFIX = "/corpus-quality"
"""Where the application is mounted."""


class LazyApplication:
    """An ASGI application that is built by its first request."""

    async def __call__(self, scope: Any, receive: Callable[..., Any], send: Callable[..., Awaitable[Any]]) -> None:
        """Passes a request on to the application."""
        await _application()(scope, receive, send)


@cache
def _application() -> Any:
    from corpusmill_operators.ui.app import build_app

    return build_app()


FASTAPI_APPS = [{"app": LazyApplication(), "url_prefix": PREFIX, "name": "Corpus quality"}]
REACT_APPS = [
    {
        "name": "Corpus quality",
        "bundle_url": "corpus-quality/static/corpus_quality.js",
        "destination": "dag_run",
        "url_route": "corpus-quality",
    },
    {
        "name": "Shard quality",
        "bundle_url": "corpus-quality/static/shard_quality.js",
        "destination": "task_instance",
        "url_route": "shard-quality",
    },
    {
        "name": "Published crawls",
        "bundle_url": "corpus-quality/static/published_crawls.js",
        "destination": "dashboard",
        "url_route": "published-crawls",
    },
]
"""Addresses have no leading slash: they are relative to the page's base, so Airflow may live below any path."""

_registered_by: list[str] = []


def register_once(file: str) -> None:
    """Refuses a second registration in one process; Airflow shows the message among the import errors of plugins.

    Airflow alone says "already registered, skipping" of one of the two, and its task processes drop other plugins
    without a word.

    Args:
        file: The file that registers, its ``__file__``. One file may be loaded again: Airflow's core and its task
            runtime each load plugins.

    Raises:
        RuntimeError: Another file has registered corpusmill in this process.
    """
    first = _registered_by[0] if _registered_by else file
    if first != file:
        raise RuntimeError(
            f"the plugin of corpusmill is registered twice: {first} has registered it, and {file} does again; "
            f"remove one of the two files and restart Airflow"
        )
    _registered_by[:] = [file]
