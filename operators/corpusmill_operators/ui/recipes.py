"""Which recipe a DAG is of: rights are given for DAGs, so a DAG shows its own recipe's runs and no other's."""

PREFIX = "corpus_refresh_"
"""DAG ids of ``dags/corpus_refresh.py`` begin with it."""


def recipe_of(dag_id: str) -> str | None:
    """Returns the recipe that a DAG refreshes, None for DAGs of another kind."""
    recipe = dag_id.removeprefix(PREFIX)
    return recipe if recipe != dag_id and recipe else None


def dag_of(recipe: str) -> str:
    """Returns the id of the DAG that refreshes a recipe."""
    return f"{PREFIX}{recipe}"
