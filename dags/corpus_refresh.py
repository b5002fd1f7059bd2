"""One DAG for each recipe: a crawl release goes from its files to the published corpus.

The DAG id is ``corpus_refresh_<recipe>``, its runs are identified by crawl ids. History:
``airflow backfill create --dag-id corpus_refresh_<recipe> --from-date 2024-01-01 --to-date 2024-12-31``.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.sdk import DAG, Param, chain

import corpusmill_operators as mill

recipes, broken = mill.read_recipes(Path(__file__).parent / "recipes")
alerts = mill.read_alerts()

for file, recipe, releases in recipes:
    with DAG(
        dag_id=f"corpus_refresh_{recipe.name}",
        description=f"One crawl release through recipe {recipe.name}",
        doc_md=f"{recipe.description}\n\nRecipe: `dags/recipes/{file.name}`, fingerprint `{recipe.fingerprint()}`.",
        schedule=mill.CrawlReleaseTimetable(releases),
        start_date=datetime.combine(recipe.schedule.start_date, datetime.min.time(), tzinfo=UTC),
        catchup=recipe.schedule.catchup,
        max_active_runs=1,
        tags=["corpusmill", recipe.name],
        params={"crawl": Param(None, type=["null", "string"]), "source": Param(None, type=["null", "string"])},
        default_args={**mill.TASK_DEFAULTS, "execution_timeout": timedelta(hours=12)},
        **alerts.dag_arguments(recipe.name),
    ):
        plan = mill.PlanRunOperator(task_id="plan", recipe=recipe.model_dump(mode="json"))
        of = {"plan": plan.output["plan"]}
        each = {**of, "map_index_template": mill.SHARD_LABEL}
        model = {**each, "pool": mill.GPU_POOL, "execution_timeout": timedelta(hours=24)}
        names = plan.output

        ingest = mill.IngestCrawlOperator.partial(task_id="ingest", **each).expand(shard=names)
        commit_pages = mill.CommitStageOperator(task_id="commit_pages", stage="ingest", **of)
        clean = mill.CleanRulesOperator.partial(task_id="clean", **each).expand(shard=names)
        commit_documents = mill.CommitStageOperator(task_id="commit_documents", stage="clean", **of)
        joined, packed, counted, asked = (), (), (), ()
        if recipe.deduplication.near is not None:
            index = mill.IndexBandsOperator(task_id="index_bands", **of)
            join = mill.JoinBandsOperator.partial(task_id="join_bands", map_index_template=mill.PART_LABEL, **of)
            joined = (index, join.expand(part=index.output))
        deduplicate = mill.DeduplicateOperator(task_id="deduplicate", **of)
        refine_documents = mill.RefineDocumentsOperator.partial(task_id="refine_documents", **model).expand(shard=names)
        commit_decisions = mill.CommitStageOperator(task_id="commit_decisions", stage="refine_documents", **of)
        refine_chunks = mill.RefineChunksOperator.partial(task_id="refine_chunks", **model).expand(shard=names)
        commit_refinements = mill.CommitStageOperator(task_id="commit_refinements", stage="refine_chunks", **of)
        if recipe.packs_sequences:
            pack = mill.PackSequencesOperator.partial(task_id="pack", **each).expand(shard=names)
            packed = (pack, mill.CommitStageOperator(task_id="commit_sequences", stage="pack", **of))
        score = mill.ScoreUnitsOperator.partial(task_id="score", **model).expand(shard=names)
        commit_scores = mill.CommitStageOperator(task_id="commit_scores", stage="score", **of)
        if recipe.select is not None:
            counted = (mill.CountScoresOperator.partial(task_id="count_scores", **each).expand(shard=names),)
        select = mill.SelectUnitsOperator(task_id="select", **of)
        assemble = mill.AssembleCorpusOperator.partial(task_id="assemble", **each).expand(shard=names)
        commit_audit_branch = mill.CommitStageOperator(task_id="commit_audit_branch", stage="assemble", **of)
        validate = mill.ValidateTableOperator(task_id="validate", **of)
        if recipe.validation.ask_before_publishing:
            asked = (mill.ApprovePublicationOperator(task_id="approve", **of),)
        publish = mill.PublishCorpusOperator(task_id="publish", outlets=[mill.corpus_asset(recipe.name)], **of)
        report = mill.ReportRunOperator(task_id="report")

        chain(plan, ingest, commit_pages, clean, commit_documents, *joined, deduplicate)
        deduplicate >> refine_documents >> commit_decisions >> refine_chunks >> commit_refinements
        chain(commit_refinements, *packed, score, commit_scores, *counted, select)
        chain(select, assemble, commit_audit_branch, validate, *asked, publish, report)

for name, problem in broken.items():  # a DAG without tasks, so that the UI says what is wrong
    with DAG(
        dag_id=f"corpus_refresh_{name}",
        description="This recipe cannot be read; the documentation of this DAG says why",
        doc_md=f"```text\n{problem}\n```",
        schedule=None,
        tags=["corpusmill", "broken recipe"],
    ):
        pass
