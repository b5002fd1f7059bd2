"""Finds and pins the models that a recipe names.

``bundled:NAME`` is a folder inside the package, ``/path`` or ``./path`` a local folder, ``registered:NAME@VERSION`` a
model that `build_refiner` made, anything else a model hub id.
Pinning adds the sha256 of local weights, so that a commit key names the exact model.
"""

import re
from collections.abc import Sequence
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
    further: tuple["PinnedModel", ...] = ()
    """Models that the stage's other settings name (a score's ensemble and baseline), as `further_models` lists them."""

    def identity(self) -> list[str | None]:
        """Returns what stands in commit keys: the content where it is known, else hub id and revision."""
        own = [self.sha256] if self.sha256 else [self.location, self.revision]
        return own + [part for model in self.further for part in model.identity()]


def further_models(config: Any) -> list[tuple[str, int | None, Any]]:
    """Returns the models that a stage's settings name beside ``model``: field, place in its tuple, and settings.

    Any field counts that holds settings with a ``model`` of their own, or a tuple of such.
    """
    found: list[tuple[str, int | None, Any]] = []
    for name, value in config:
        values = list(enumerate(value)) if isinstance(value, tuple) else [(None, value)]
        found += [(name, i, one) for i, one in values if isinstance(one, StageConfig) and hasattr(one, "model")]
    return found


def pin_models_of(config: Any) -> PinnedModel:
    """Returns the pinned model of a stage, with those that its other settings name.

    Raises:
        ConfigError: One of them does not exist, or has another digest than expected.
    """
    main = pin_model(config.model, getattr(config, "revision", None), config.sha256)
    further = tuple(pin_model(m.model, m.revision, m.sha256) for _, _, m in further_models(config))
    return main.model_copy(update={"further": further})


def without_models(config: Any) -> Any:
    """Returns a stage's settings with all names of models left out: for keys that hold the models' content instead."""
    blank = {"model": "", "revision": None, "sha256": None}
    update = _replaced(config, [m.model_copy(update=blank) for _, _, m in further_models(config)])
    return config.model_copy(update={**update, "model": ""})


def _replaced(config: Any, models: Sequence[Any]) -> dict[str, Any]:
    """Returns the fields of `further_models` with other settings in place of theirs."""
    fields: dict[str, Any] = {}
    for (name, place, _), model in zip(further_models(config), models, strict=True):
        fields[name] = model if place is None else (*fields.get(name, ()), model)
    return fields


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
    further = [with_model(m, pin) for (_, _, m), pin in zip(further_models(config), pinned.further, strict=True)]
    update = {"model": location, "sha256": pinned.sha256 or None, "revision": pinned.revision}
    update |= _replaced(config, further)
    if getattr(config, "backend", "") == "completions":  # a server knows its model by name, not by a folder here
        update["served_name"] = config.served_name or pinned.name
    return config.model_copy(update=update)
