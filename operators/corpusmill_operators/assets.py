"""Airflow assets: what a DAG of another team can wait for."""

from airflow.sdk import Asset


def corpus_asset(recipe: str) -> Asset:
    """Returns the asset of a recipe's published corpus.

    Every publication emits one event for it, with the crawl id as partition key and the figures of the publication
    (documents, snapshot, tag) in ``extra``.
    """
    return Asset(name=f"{recipe}.corpus", uri=f"x-corpusmill://lakehouse/{recipe}/corpus", group="corpusmill")


def refiner_asset(name: str) -> Asset:
    """Returns the asset of a refiner; every registration emits one event with the model's reference in ``extra``."""
    return Asset(name=f"refiner.{name}", uri=f"x-corpusmill://models/{name}", group="corpusmill")


def reference_model_asset(name: str) -> Asset:
    """Returns the asset of a reference model; every registration emits one event with its reference in ``extra``."""
    return Asset(name=f"reference_model.{name}", uri=f"x-corpusmill://reference_models/{name}", group="corpusmill")


def releases_asset(source: str) -> Asset:
    """Returns the asset of a source's releases; every new one emits one event with the crawl id as partition key.

    Args:
        source: Name of the source, see `releases.watched_sources`; ``data.commoncrawl.org`` for Common Crawl.
    """
    return Asset(name=f"{source}.releases", uri=f"x-corpusmill://crawls/{source}", group="corpusmill")
