"""Weekly upkeep of the lakehouse: expire snapshots and audit branches, compact small files, delete orphan files.

It may run beside refreshes. Published tags stay readable. Start it with ``dry_run`` to see what it would do.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, Param

import corpusmill_operators as mill

recipes, _ = mill.read_recipes(Path(__file__).parent / "recipes")

with DAG(
    dag_id="maintain_lakehouse",
    description="Expires snapshots, compacts small files, deletes orphan files",
    doc_md=__doc__,
    schedule="0 4 * * 0",
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["corpusmill", "upkeep"],
    params={
        "days": Param(30.0, type="number", minimum=1, description="age of what expires"),
        "grace_hours": Param(72.0, type="number", minimum=24, description="age of orphan files that are deleted"),
        "dry_run": Param(False, type="boolean", description="only say what would be done"),
    },
    default_args={
        "owner": "corpusmill",
        "retries": 3,
        "retry_delay": timedelta(minutes=5),
        "execution_timeout": timedelta(hours=12),
    },
):
    mill.MaintainLakehouseOperator.partial(
        task_id="maintain",
        map_index_template=mill.NAMESPACE_LABEL,
        max_active_tis_per_dag=1,  # all of them list the same folder of manifests
        days="{{ params.days }}",
        grace_hours="{{ params.grace_hours }}",
        dry_run="{{ params.dry_run }}",
    ).expand(namespace=["raw", "ops", *(found.recipe.name for found in recipes)])
