"""One DAG for each refiner recipe: from sampled documents to a registered refiner.

The DAG id is ``build_refiner_<name>``; recipes are in ``dags/refiners``. A domain is a recipe and nothing else. What a
build registers is used by a corpus recipe that names it: ``model: registered:<name>@<version>``.
"""

import os
from datetime import timedelta
from pathlib import Path

from airflow.sdk import DAG

import corpusmill_operators as mill

folder = Path(os.environ.get("CORPUSMILL_REFINER_RECIPES", Path(__file__).parent / "refiners"))
recipes, broken = mill.read_refiner_recipes(folder)

for file, recipe in recipes:
    with DAG(
        dag_id=f"build_refiner_{recipe.name}",
        description=f"Builds refiner {recipe.name}",
        doc_md=f"{recipe.description}\n\nRecipe: `dags/refiners/{file.name}`, fingerprint `{recipe.fingerprint()}`.",
        schedule=None,
        max_active_runs=1,
        tags=["corpusmill", "refiner"],
        default_args={**mill.TASK_DEFAULTS, "execution_timeout": timedelta(hours=24)},
    ):
        sample_seed = mill.SampleSeedOperator(task_id="sample_seed", recipe=recipe.model_dump(mode="json"))
        of = {"plan": sample_seed.output["plan"]}
        model = {**of, "pool": mill.GPU_POOL}

        annotate = mill.AnnotateSeedOperator.partial(
            task_id="annotate", map_index_template=mill.SHARD_LABEL, **of
        ).expand(shard=sample_seed.output)
        synthesise = mill.SynthesiseExamplesOperator(task_id="synthesise", **of)
        train = mill.TrainRefinerOperator(task_id="train", **model)
        evaluate = mill.EvaluateRefinerOperator(task_id="evaluate", **model)
        register = mill.RegisterRefinerOperator(task_id="register", outlets=[mill.refiner_asset(recipe.name)], **of)

        sample_seed >> annotate >> synthesise >> train >> evaluate >> register

for name, problem in broken.items():  # a DAG without tasks, so that the UI says what is wrong
    with DAG(
        dag_id=f"build_refiner_{name}",
        description="This recipe cannot be read; the documentation of this DAG says why",
        doc_md=f"```text\n{problem}\n```",
        schedule=None,
        tags=["corpusmill", "broken recipe"],
    ):
        pass
