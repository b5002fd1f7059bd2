"""Models that an ablation takes as they are: folders, hub ids, bundled and registered ones."""

from pathlib import Path


def model_place(name: str, revision: str | None = None) -> Path:
    """Returns the local folder of a model.

    Args:
        name: Folder, hub id, ``bundled:NAME``, or ``registered:NAME@VERSION`` as a build DAG leaves it.
        revision: Commit of a hub model.

    Raises:
        ConfigError: No such model is registered.
        ModelError: There is no such folder, or the hub does not answer.
    """
    from corpusmill.runner.model_registry import REGISTERED, fetch_model, find_model

    if name.startswith(REGISTERED):
        from corpusmill.runner.open_lakehouse import open_lakehouse

        lake = open_lakehouse()
        return fetch_model(lake, find_model(lake, name))
    from corpusmill.modeling.load import model_folder

    return model_folder(name, revision)
