"""The one step that creates things: Airflow's database and pools, the lakehouse's catalog and tables."""

import json
import threading
from collections.abc import Callable

from corpusmill_operators.local.processes import run_airflow
from corpusmill_operators.local.settings import LocalSettings
from corpusmill_operators.pools import pool_definitions
from corpusmill_operators.recipes import read_recipes


def initialise(settings: LocalSettings, write: Callable[[str], None]) -> None:
    """Creates what is not there yet; a second call changes nothing.

    Args:
        settings: Folders and address.
        write: Receives a line per step.
    """
    from corpusmill.runner import chain

    settings.airflow_home.mkdir(parents=True, exist_ok=True)
    read, broken = read_recipes(settings.project / "dags" / "recipes")
    recipes = [found.recipe.name for found in read]
    for name, problem in broken.items():
        write(f"recipe {name} is left out, it cannot be read: {problem}")
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
