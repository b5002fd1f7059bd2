"""Pins the list files and frozen cut-offs that a recipe names by path: their content counts in commit keys.

A block list that was edited is another rule, so the digest of every list is put into the recipe when a run is planned;
the stage refuses the file if it has changed by the time it is read. A cut-offs file is put into the recipe whole.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from corpusmill.errors import ConfigError
from corpusmill.recipe import Recipe
from corpusmill.rules.config import ListFile


def pin_files(recipe: Recipe) -> Recipe:
    """Returns the recipe with the sha256 of every list file and with its cut-offs inline.

    Raises:
        ConfigError: A file does not exist, or a cut-offs file is not JSON.
    """
    rules = {name: _pinned(value) for name, value in recipe.rules}
    changes: dict[str, Any] = {"rules": recipe.rules.model_copy(update=rules)}
    if recipe.select is not None and isinstance(recipe.select.cutoffs, str):
        changes["select"] = recipe.select.model_copy(update={"cutoffs": _json(recipe.select.cutoffs)})
    return recipe.model_copy(update=changes)


def _pinned(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _pinned(v) for k, v in value.items()}
    if not isinstance(value, ListFile) or value.sha256 is not None:
        return value
    return value.model_copy(update={"sha256": hashlib.sha256(_read(str(value.path))).hexdigest()})


def _json(path: str) -> Any:
    try:
        return json.loads(_read(path))
    except ValueError as error:
        raise ConfigError(f"cutoffs={path!r} is not JSON: {error}; give a manifest that 'select' stored") from error


def _read(path: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ConfigError(f"file {path!r} that the recipe names cannot be read: {error}") from error
