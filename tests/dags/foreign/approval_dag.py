"""A foreign DAG that asks a person before it publishes what another process has audited."""

from airflow.sdk import DAG, Param

import corpusmill_operators as mill

PARAMS = {"plan": Param("", type="string"), "crawl": Param("", type="string")}

with DAG(dag_id="approval", schedule=None, params=PARAMS):
    approve = mill.ApprovePublicationOperator(task_id="approve", plan="{{ params.plan }}")
    publish = mill.PublishCorpusOperator(task_id="publish", plan="{{ params.plan }}")
    approve >> publish
