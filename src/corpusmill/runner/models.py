"""Finds and pins the models that a recipe names.

``bundled:NAME`` is a folder inside the package, ``/path`` or ``./path`` a local folder, ``registered:NAME@VERSION`` a
model that `build_refiner` made, anything else a model hub id.
Pinning adds the sha256 of local weights, so that a commit key names the exact model.
"""

import re
from pathlib import Path
from typing import Any

from corpusmill.config import StageConfig
from corpusmill.errors import ConfigError, ModelError, Transient
from corpusmill.modeling.load import BUNDLED, model_folder
from corpusmill.prox.refiner import folder_digest
from corpusmill.runner.model_registry import REGISTERED, fetch_model, find_model
from corpusmill.runner.open_lakehouse import open_lakehouse


class HubUnavailableError(ModelError, Transient):
    """The model hub does not answer now."""


class PinnedModel(StageConfig):
    """One model of a run, fixed when the run was planned."""

    name: str
    """As the recipe names it."""
    location: str
    """Folder or hub id to load from."""
    sha256: str
    """Digest over the folder's weight and tokenizer files; ``""`` for a hub id (its revision pins it)."""
    revision: str | None = None
    """Revision on the hub."""

    def identity(self) -> list[str | None]:
        """Returns what stands in commit keys: the content where it is known, else hub id and revision."""
        return [self.sha256] if self.sha256 else [self.location, self.revision]


def pin_model(name: str, revision: str | None = None, sha256: str | None = None) -> PinnedModel:
    """Returns the model with its location and digest.

    Args:
        name: As the recipe names it.
        revision: Revision of a hub model.
        sha256: Digest that a local model must have, None for any.

    Raises:
        ConfigError: A bundled name or local folder does not exist, or has another digest.
    """
    if name.startswith(REGISTERED):
        registered = find_model(open_lakehouse(), name)
        _check_digest(name, registered.sha256, sha256)
        return PinnedModel(name=name, location=name, sha256=registered.sha256)
    folder = local_folder(name)
    if folder is not None:
        found = folder_digest(folder)
        _check_digest(name, found, sha256)
        return PinnedModel(name=name, location=str(folder), sha256=found)
    return PinnedModel(name=name, location=name, sha256="", revision=hub_commit(name, revision))


def _check_digest(name: str, found: str, expected: str | None) -> None:
    if expected is not None and expected != found:
        raise ConfigError(
            f"model={name!r} has sha256={found!r}, the recipe expects {expected!r}; its files were changed, or the "
            "recipe names another version"
        )


def hub_commit(name: str, revision: str | None) -> str:
    """Returns the commit that a hub model's branch or tag points to now; a commit is returned as it is.

    A commit key must name the exact weights: behind the name of a branch they can change.

    Raises:
        ConfigError: The hub does not know the model or its revision, or this machine works offline.
        HubUnavailableError: The hub does not answer now.
    """
    if revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision):
        return revision
    from huggingface_hub import HfApi
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    unknown = (GatedRepoError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError)
    what = f"model={name!r} revision={revision!r} could not be resolved to a commit"
    try:
        return str(HfApi().model_info(name, revision=revision).sha)
    except unknown as error:
        raise ConfigError(f"{what}: {error}; give a folder, or name the commit (40 hex digits) as revision") from error
    except Exception as error:
        raise HubUnavailableError(f"{what}: {error}; a retry may succeed, or name the commit as revision") from error


def local_folder(name: str) -> Path | None:
    """Returns the folder of a bundled or local model, None for a hub id.

    Raises:
        ConfigError: A bundled name or local folder does not exist.
    """
    if not name.startswith((BUNDLED, "/", "./", "../", "~")):
        return None
    try:
        return model_folder(name).resolve()
    except ModelError as error:
        raise ConfigError(str(error)) from error


def with_model(config: Any, pinned: PinnedModel) -> Any:
    """Returns a stage's settings with the model's location in place of its name; a registered model is fetched."""
    location = pinned.location
    if location.startswith(REGISTERED):
        lake = open_lakehouse()
        location = str(fetch_model(lake, find_model(lake, location)))
    update = {"model": location, "sha256": pinned.sha256 or None, "revision": pinned.revision}
    if getattr(config, "backend", "") == "completions":  # a server knows its model by name, not by a folder here
        update["served_name"] = config.served_name or pinned.name
    return config.model_copy(update=update)
