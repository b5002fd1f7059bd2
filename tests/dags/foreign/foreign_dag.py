"""A DAG of another team: two corpusmill stages on its own table, without a recipe, a plan or shards."""

from datetime import UTC, datetime

from airflow.sdk import DAG, Param

import corpusmill_operators as mill

with DAG(
    dag_id="team_b_pages",
    schedule=None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    params={"crawl": Param("TEAM-B-1", type="string")},
    tags=["team-b"],
):
    pages = {"source": "team_b.pages"}
    clean = mill.CleanRulesOperator(task_id="clean", target="team_b.clean", config={"languages": ["en"]}, **pages)
    score = mill.ScoreUnitsOperator(
        task_id="score", target="team_b.scores", config={"model": "bundled:reference_lm"}, pool=mill.GPU_POOL, **pages
    )
    clean >> score
