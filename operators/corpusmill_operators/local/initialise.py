"""The one step that creates things: Airflow's database and pools, the lakehouse's catalog and tables."""

import json
import threading
from collections.abc import Callable

from corpusmill.recipe import load_recipe
from corpusmill_operators.local.processes import run_airflow
from corpusmill_operators.local.settings import LocalSettings
from corpusmill_operators.pools import pool_definitions


def initialise(settings: LocalSettings, write: Callable[[str], None]) -> None:
    """Creates what is not there yet; a second call changes nothing.

    Args:
        settings: Folders and address.
        write: Receives a line per step.
    """
    from corpusmill.runner import chain

    settings.airflow_home.mkdir(parents=True, exist_ok=True)
    recipes = [load_recipe(path).name for path in sorted((settings.project / "dags" / "recipes").glob("*.yaml"))]
    write(f"initialising {settings.home}: Airflow's database, lakehouse for {', '.join(recipes)}")
    failed: list[BaseException] = []

    def migrate() -> None:
        try:
            run_airflow(settings, "db", "migrate")
            pools = settings.airflow_home / "pools.json"
            pools.write_text(json.dumps(pool_definitions(), indent=2))
            run_airflow(settings, "pools", "import", str(pools))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            failed.append(error)

    database = threading.Thread(target=migrate, daemon=True)
    database.start()
    chain.initialise(recipes)
    database.join()
    if failed:
        raise failed[0]
