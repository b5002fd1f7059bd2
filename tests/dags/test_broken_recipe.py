"""A recipe that cannot be read: the others' DAGs stay, and its own says what is wrong."""

import shutil
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.airflow, pytest.mark.filterwarnings("default")]


def test_a_broken_recipe_takes_no_other_dag_along_and_says_what_is_wrong(airflow_db, load_dags, tmp_path):
    folder = tmp_path / "dags"
    shutil.copytree(REPOSITORY / "dags", folder)
    (folder / "recipes" / "typo.yaml").write_text("name: typo\nrules: {presett: fineweb}\n")
    sound, dags = load_dags(), load_dags(folder)
    assert set(dags) == {*sound, "corpus_refresh_typo"}
    broken = dags["corpus_refresh_typo"]
    assert "rules.presett='fineweb'" in broken.doc_md
    assert broken.task_ids == []
    assert dags["corpus_refresh_demo"].task_ids == sound["corpus_refresh_demo"].task_ids != []
