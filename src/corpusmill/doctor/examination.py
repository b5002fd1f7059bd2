"""Runs all checks at once, so that one that gets no answer delays no other and the whole ends in seconds."""

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from corpusmill.doctor.airflow_database import airflow_database, check_pools, check_schedulers
from corpusmill.doctor.finding import Finding, error
from corpusmill.doctor.packages import check_constraints, check_packages, check_plugin, check_python, plugins_folder
from corpusmill.doctor.recipes import check_endpoints, check_models, check_release_list, read_recipe_folder
from corpusmill.doctor.spark import check_spark
from corpusmill.doctor.storage import check_catalog, check_disk, check_tables, check_warehouse
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.settings import LakehouseSettings, corpusmill_home

SECONDS = 4.0
"""Time for all checks together; what has not answered by then is a finding of its own."""

Check = tuple[str, Callable[[], Iterable[Finding]]]


def examine(recipes: Path) -> list[Finding]:
    """Returns the findings on this installation, in a fixed order.

    Args:
        recipes: Folder of the recipes.
    """
    read, findings = read_recipe_folder(recipes)
    now = dt.datetime.now(dt.UTC)
    database = airflow_database()
    lake = Lakehouse(LakehouseSettings.from_environment(corpusmill_home()))
    checks: list[Check] = [
        ("python", check_python),
        ("packages", check_packages),
        ("spark", check_spark),
        ("pinned versions", partial(check_constraints, Path("constraints.txt"))),
        ("plugin", partial(check_plugin, plugins_folder())),
        ("catalog", partial(check_catalog, lake)),
        ("warehouse", partial(check_warehouse, lake)),
        ("disk", partial(check_disk, lake)),
        ("pools", partial(check_pools, database)),
        ("schedulers", partial(check_schedulers, database, now)),
    ]
    for file, recipe in read:
        checks += [
            (f"tables {recipe.name}", partial(check_tables, lake, recipe.name)),
            (f"releases {recipe.name}", partial(check_release_list, file, recipe, now)),
            (f"models {recipe.name}", partial(check_models, lake, recipe)),
            (f"connections {recipe.name}", partial(check_endpoints, recipe, database)),
        ]
    return findings + run_checks(checks, SECONDS)


def run_checks(checks: list[Check], seconds: float) -> list[Finding]:
    """Returns the findings of all checks in their order; one that does not answer in time gets a finding."""
    found: dict[str, list[Finding]] = {}

    def run(name: str, check: Callable[[], Iterable[Finding]]) -> None:
        try:
            found[name] = list(check())
        except Exception as problem:  # noqa: BLE001 - a doctor that falls ill helps nobody
            what = f"could not be checked: {type(problem).__name__}: {problem}"
            found[name] = [error(name, what, "please report this as a fault of corpusmill doctor")]

    threads = [threading.Thread(target=run, args=check, daemon=True) for check in checks]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = "look at the server behind it; this machine gets no answer"
    return [
        finding
        for name, _ in checks
        for finding in found.get(name, [error(name, f"no answer within {seconds:g} s", late)])
    ]
