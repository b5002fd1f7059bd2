"""Provider metadata, found by Airflow through the entry point ``apache_airflow_provider``."""

from typing import Any

from corpusmill import __version__


def get_provider_info() -> dict[str, Any]:
    """Returns the metadata that ``airflow providers list`` shows.

    Operator links and the timetable are registered by ``plugins/corpusmill_plugin.py`` and nowhere else: what is
    registered twice makes Airflow's task processes drop other plugins.
    """
    return {
        "package-name": "corpusmill",
        "name": "corpusmill",
        "description": "Web crawls to a language-model pretraining corpus, stage by stage.",
        "versions": [__version__],
    }
