"""Looks for new crawl releases once a day and adds them to the release lists.

This DAG starts no refresh: the timetable of each `corpus_refresh_*` makes one run for each release in its list. A day
without news is a skipped day. Other DAGs can follow the asset of a source, with the crawl id as partition key.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG

import corpusmill_operators as mill

recipes, _ = mill.read_recipes(Path(__file__).parent / "recipes")

with DAG(
    dag_id="crawl_watch",
    description="Finds new crawl releases",
    doc_md=__doc__,
    schedule=mill.DailyWatchTimetable("30 5 * * *", timezone="UTC"),
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    tags=["corpusmill", "releases"],
    default_args={
        "owner": "corpusmill",
        "retries": 5,
        "retry_delay": timedelta(minutes=10),
        "execution_timeout": timedelta(hours=1),
    },
):
    for source in mill.watched_sources((found.file, found.recipe) for found in recipes):
        mill.WatchReleasesOperator(
            task_id=f"watch_{source.name}",
            source=source.base,
            place=source.place,
            outlets=[mill.releases_asset(source.name)],
        )
