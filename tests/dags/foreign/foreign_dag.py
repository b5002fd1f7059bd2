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
    clean = mill.CleanRulesOperator(
        task_id="clean", source="team_b.pages", target="team_b.clean", config={"languages": ["en"]}
    )
    refine = mill.RefineChunksOperator(
        task_id="refine", source="team_b.clean", target="team_b.refined", pool="gpu",
        config={"backend": "labeller", "model": "bundled:line_labeller"},
    )  # fmt: skip
    clean >> refine
