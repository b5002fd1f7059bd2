"""Registered models: built by this project, kept in the warehouse, named by content.

A registered model is a folder below ``<warehouse>/_models/<name>/<version>`` and a row of ``ops.models``. The version
is the first 12 digits of the folder's digest, so a name and a version always mean the same weights, and registering the
same model again changes nothing. A recipe names ``registered:NAME@VERSION``: without a version it would change its
history whenever a refiner is built anew, so that is refused.
"""

import json
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from corpusmill import __version__
from corpusmill.batches import rows_to_table
from corpusmill.config import fingerprint
from corpusmill.errors import ConfigError, ModelError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.lakehouse.epochs import take_epoch
from corpusmill.lakehouse.settings import corpusmill_home
from corpusmill.lakehouse.shards import RunToken
from corpusmill.lakehouse.storage import copy_file_in, copy_file_out, list_files
from corpusmill.prox.refiner import folder_digest
from corpusmill.runner.whole_crawl import commit_rows
from corpusmill.schema import MODELS

REGISTERED = "registered:"
"""Prefix of a registered model's name in recipes and commands."""
MODELS_TABLE = "ops.models"
VERSION_DIGITS = 12


@dataclass(frozen=True)
class RegisteredModel:
    """A row of ``ops.models``.

    Attributes:
        name: Name given by whoever built it.
        version: First 12 digits of the folder's sha256.
        kind: ``labeller``, ``program-writer``, ``program-model``, ...
        location: URI of the folder in the warehouse.
        sha256: Digest of the folder (`corpusmill.prox.refiner.folder_digest`).
        base: What it was trained from.
        training_data: Table partition and snapshot, or file digests, as JSON.
        quality: Measured figures, as JSON.
    """

    name: str
    version: str
    kind: str
    location: str
    sha256: str
    base: str
    training_data: str
    quality: str

    @property
    def reference(self) -> str:
        """How recipes name it."""
        return f"{REGISTERED}{self.name}@{self.version}"


def store_model(lake: Lakehouse, name: str, folder: Path) -> RegisteredModel:
    """Copies a model folder into the warehouse and returns where it is; nothing names it before `register_model`.

    Raises:
        ModelError: The folder holds no file.
    """
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    if not files:
        raise ModelError(f"model folder {str(folder)!r} is empty; expected config.json and weights")
    digest = folder_digest(folder)
    version = digest[:VERSION_DIGITS]
    location = "/".join([str(lake.settings.warehouse).rstrip("/"), "_models", name, version])
    for path in files:
        copy_file_in(lake.io, path, f"{location}/{path.relative_to(folder).as_posix()}")
    return RegisteredModel(name, version, "", location, digest, "", "", "")


def register_model(lake: Lakehouse, model: RegisteredModel, run_id: str) -> bool:
    """Adds a stored model's row to ``ops.models``; returns False where exactly this row is there already."""
    row = {field: getattr(model, field) for field in MODELS.schema.names}
    key = fingerprint(row)
    partition = {"name": model.name, "version": model.version}
    if lake.table(MODELS_TABLE).partition_key(partition) == key:
        return False
    epoch = take_epoch(lake, f"{REGISTERED}{model.name}", model.version, run_id)
    token = RunToken(f"{REGISTERED}{model.name}", model.version, run_id, epoch, key, {"corpusmill": __version__})
    commit_rows(lake, MODELS_TABLE, partition, rows_to_table([row], MODELS.schema), token)
    return True


def registered_models(lake: Lakehouse, name: str) -> list[RegisteredModel]:
    """Returns every registered version of a name, by version."""
    rows = [row for row in lake.table(MODELS_TABLE).scan(None).to_pylist() if row["name"] == name]
    models = [RegisteredModel(**{k: v or "" for k, v in row.items()}) for row in rows]
    return sorted(models, key=lambda m: m.version)


def find_model(lake: Lakehouse, reference: str, *, only_one: bool = False) -> RegisteredModel:
    """Returns the model that ``NAME@VERSION`` names, with or without the prefix ``registered:``.

    Args:
        lake: The lakehouse.
        reference: Name and version.
        only_one: The version may be left out where just one is registered; for commands, never for recipes.

    Raises:
        ConfigError: No such model, or no version where one is needed; the message lists what there is.
    """
    name, _, version = reference.removeprefix(REGISTERED).partition("@")
    known = registered_models(lake, name)
    if not known:
        raise ConfigError(f"model={reference!r}: no model of that name is registered; `build_refiner` registers models")
    if not version and only_one and len(known) == 1:
        return known[0]
    for model in known:
        if version and model.version == version:
            return model
    raise ConfigError(
        f"model={reference!r} must name one of the registered versions, so that a new one never changes what was "
        f"published: {[m.reference for m in known]}"
    )


def fetch_model(lake: Lakehouse, model: RegisteredModel) -> Path:
    """Returns a local folder with the model's files: the warehouse's own where it is local, else a checked copy.

    Raises:
        ModelError: The stored files are not those that were registered.
    """
    if model.location.startswith("file:"):
        folder = Path(lake.io.parse_location(model.location)[2])
    else:
        folder = corpusmill_home() / "models" / model.sha256
        if not folder.is_dir():
            _download(lake, model, folder)
    if not folder.is_dir() or folder_digest(folder) != model.sha256:
        raise ModelError(
            f"model {model.reference!r} at {model.location!r} does not have the sha256={model.sha256!r} that it was "
            "registered with; its files were changed or lost: build it again, or name another version"
        )
    return folder


def _download(lake: Lakehouse, model: RegisteredModel, folder: Path) -> None:
    scratch = folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}")
    for file in list_files(lake.io, model.location):
        relative = file.location.removeprefix(model.location.rstrip("/") + "/")
        copy_file_out(lake.io, file.location, scratch / relative)
    scratch.mkdir(parents=True, exist_ok=True)
    try:
        scratch.rename(folder)
    except OSError:  # another process was first
        shutil.rmtree(scratch, ignore_errors=True)


def stored_quality(folder: Path) -> dict[str, Any]:
    """Returns the quality that a model folder states for itself, {} where it states none."""
    for name in ("corpusmill.json", "config.json"):
        path = folder / name
        if path.is_file():
            quality = json.loads(path.read_text(encoding="utf-8")).get("quality")
            if isinstance(quality, dict):
                return quality
    return {}
