"""Reads the ablation recipes of a folder for the DAG file: a broken one must not take the others' DAGs along."""

from pathlib import Path

from corpusmill.ablation.config import AblationRecipe, load_ablation
from corpusmill.errors import ConfigError


def read_ablations(folder: Path) -> tuple[list[tuple[Path, AblationRecipe]], dict[str, str]]:
    """Returns the ablation recipes of a folder, and what is wrong with each that cannot be read, by file name."""
    read: list[tuple[Path, AblationRecipe]] = []
    broken: dict[str, str] = {}
    for file in sorted(folder.glob("*.yaml")):
        try:
            read.append((file, load_ablation(file)))
        except ConfigError as error:
            broken[file.stem] = str(error)
    return read, broken
