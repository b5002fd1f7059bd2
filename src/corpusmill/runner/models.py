"""Finds and pins the models that a recipe names.

``bundled:NAME`` is a folder inside the package, ``/path`` or ``./path`` a local folder, anything else a model hub id.
Pinning adds the sha256 of local weights, so that a commit key names the exact model.
"""

import hashlib
from importlib import resources
from pathlib import Path
from typing import Any

from corpusmill.config import StageConfig
from corpusmill.errors import ConfigError

BUNDLED = "bundled:"


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


def pin_model(name: str, revision: str | None = None) -> PinnedModel:
    """Returns the model with its location and digest.

    Raises:
        ConfigError: A bundled name or local folder does not exist.
    """
    if name.startswith(BUNDLED):
        folder = Path(str(resources.files("corpusmill.demo") / "models" / name.removeprefix(BUNDLED)))
        if not folder.is_dir():
            known = sorted(p.name for p in folder.parent.glob("*") if p.is_dir())
            raise ConfigError(f"model={name!r} is not bundled; bundled models: {known}")
        return PinnedModel(name=name, location=str(folder), sha256=folder_sha256(folder))
    if name.startswith(("/", "./", "../", "~")):
        folder = Path(name).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"model={name!r} is not a folder; give a model folder, a hub id, or bundled:NAME")
        return PinnedModel(name=name, location=str(folder.resolve()), sha256=folder_sha256(folder))
    return PinnedModel(name=name, location=name, sha256="", revision=revision)


def folder_sha256(folder: Path) -> str:
    """Returns the sha256 over names and bytes of a model folder's files; Markdown is left out."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix != ".md"):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def with_model(config: Any, pinned: PinnedModel) -> Any:
    """Returns a stage's settings with the model's location in place of its name."""
    return config.model_copy(update={"model": pinned.location, "sha256": None, "revision": pinned.revision})
