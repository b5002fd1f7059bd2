"""One DAG for each ablation recipe: from text to a report of what pruning and refinement do to a model.

The DAG id is ``ablation_<name>``; recipes are in ``dags/ablations``. Each mapped task of ``train`` is one student on
one arm with one seed: a killed one is retried alone, and what is done is found again by the next run.
"""

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG, TriggerRule

import corpusmill_operators as mill

folder = Path(os.environ.get("CORPUSMILL_ABLATION_RECIPES", Path(__file__).parent / "ablations"))
recipes, broken = mill.read_ablations(folder)

for file, recipe in recipes:
    with DAG(
        dag_id=f"ablation_{recipe.name}",
        description=f"Ablation {recipe.name}",
        doc_md=f"{recipe.description}\n\nRecipe: `dags/ablations/{file.name}`, fingerprint `{recipe.fingerprint()}`.",
        schedule=None,
        max_active_runs=1,
        tags=["corpusmill", "ablation"],
        default_args={**mill.TASK_DEFAULTS, "execution_timeout": timedelta(hours=24)},
    ):
        prepare = mill.PrepareAblationOperator(task_id="prepare", recipe=recipe.model_dump(mode="json"))
        of = {"plan": prepare.output["plan"]}
        model = {**of, "pool": mill.GPU_POOL}

        score = mill.ScorePoolOperator.partial(
            task_id="score", map_index_template=mill.REFERENCE_LABEL, **model
        ).expand(reference=prepare.output)
        arms = mill.ListArmsOperator(task_id="arms", trigger_rule=TriggerRule.NONE_FAILED, **of)
        train = mill.TrainArmOperator.partial(task_id="train", map_index_template=mill.ARM_LABEL, **model).expand(
            arm=arms.output
        )
        report = mill.ReportAblationOperator(task_id="report", **of)

        prepare >> score >> arms >> train >> report

for name, problem in broken.items():  # a DAG without tasks, so that the UI says what is wrong
    with DAG(
        dag_id=f"ablation_{name}",
        description="This recipe cannot be read; the documentation of this DAG says why",
        doc_md=f"```text\n{problem}\n```",
        schedule=None,
        tags=["corpusmill", "broken recipe"],
    ):
        pass
