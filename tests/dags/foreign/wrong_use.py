"""A DAG that uses a stage wrongly: a permanent error in a mapped task that would be repeated three times."""

from datetime import UTC, datetime

from airflow.sdk import DAG

import corpusmill_operators as mill

with DAG(
    dag_id="wrong_use", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=UTC), default_args={"retries": 3}
) as dag:
    mill.IngestCrawlOperator.partial(task_id="ingest", plan="").expand(shard=["00000"])
