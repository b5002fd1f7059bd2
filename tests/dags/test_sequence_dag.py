"""The DAG of a recipe that scores packed sequences: packing is a stage of its own before scoring."""

from itertools import pairwise

import pytest

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]


def test_packing_is_a_mapped_stage_between_refinement_and_scoring_that_needs_no_gpu(load_dags):
    dags = load_dags()
    dag, documents = dags["corpus_refresh_pruning_paper"], dags["corpus_refresh_demo"]
    of_near_duplicates = {"index_bands", "join_bands"}  # its recipe removes those as well
    added = {t.task_id for t in dag.tasks} - {t.task_id for t in documents.tasks} - of_near_duplicates
    assert added == {"pack", "commit_sequences"}
    for before, after in pairwise(["commit_refinements", "pack", "commit_sequences", "score", "commit_scores"]):
        assert dag.get_task(before).downstream_task_ids == {after}
    pack = dag.get_task("pack")
    assert pack.is_mapped
    assert pack.pool == "default_pool"
    assert pack.map_index_template == documents.get_task("score").map_index_template
