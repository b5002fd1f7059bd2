"""One DAG for each recipe of a reference model: from a corpus to registered models of several seeds and checkpoints.

The DAG id is ``build_reference_model_<name>``; recipes are in ``dags/reference_models``. What a build registers scores
a corpus whose recipe names it: ``score: {model: registered:<name>@<version>}``.
"""

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG

import corpusmill_operators as mill

folder = Path(os.environ.get("CORPUSMILL_REFERENCE_MODEL_RECIPES", Path(__file__).parent / "reference_models"))
recipes, broken = mill.read_reference_model_recipes(folder)

for file, recipe in recipes:
    with DAG(
        dag_id=f"build_reference_model_{recipe.name}",
        description=f"Builds reference model {recipe.name}",
        doc_md=f"{recipe.description}\n\nRecipe: `{folder.name}/{file.name}`, fingerprint `{recipe.fingerprint()}`.",
        schedule=None,
        max_active_runs=1,
        tags=["corpusmill", "reference model"],
        default_args={**mill.TASK_DEFAULTS, "execution_timeout": timedelta(days=7)},
    ):
        plan = mill.PlanReferenceModelOperator(task_id="plan", recipe=recipe.model_dump(mode="json"))
        of = {"plan": plan.output["plan"]}

        pack = mill.PackReferenceTextOperator(task_id="pack", **of)
        train = mill.TrainReferenceModelOperator.partial(
            task_id="train", map_index_template="{{ task.seed }}", pool=mill.GPU_POOL, **of
        ).expand(seed=plan.output)
        evaluate = mill.EvaluateReferenceModelOperator(task_id="evaluate", **of)
        register = mill.RegisterReferenceModelOperator(
            task_id="register", outlets=[mill.reference_model_asset(recipe.name)], **of
        )

        plan >> pack >> train >> evaluate >> register

for name, problem in broken.items():  # a DAG without tasks, so that the UI says what is wrong
    with DAG(
        dag_id=f"build_reference_model_{name}",
        description="This recipe cannot be read; the documentation of this DAG says why",
        doc_md=f"```text\n{problem}\n```",
        schedule=None,
        tags=["corpusmill", "broken recipe"],
    ):
        pass
