"""Reads the recipes of a folder for the DAG file: one that cannot be read must not take the others' DAGs along."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from corpusmill.ablation.config import AblationRecipe, load_ablation
from corpusmill.errors import ConfigError
from corpusmill.recipe import Recipe, load_recipe
from corpusmill.reference_model_recipe import ReferenceModelRecipe, load_reference_model_recipe
from corpusmill.refiner_recipe import RefinerRecipe, load_refiner_recipe
from corpusmill_operators.releases import Release, releases_of

Loaded = TypeVar("Loaded")


class ReadRecipe(NamedTuple):
    """A recipe with its file and the releases that its timetable knows."""

    file: Path
    recipe: Recipe
    releases: tuple[Release, ...]


def read_recipes(folder: Path) -> tuple[list[ReadRecipe], dict[str, str]]:
    """Returns the recipes of a folder, and what is wrong with each that cannot be read, by file name."""

    def load(file: Path) -> tuple[Recipe, tuple[Release, ...]]:
        recipe = load_recipe(file)
        return recipe, releases_of(recipe.source, folder)

    read, broken = read_each(folder, load)
    return [ReadRecipe(file, *found) for file, found in read], broken


def read_refiner_recipes(folder: Path) -> tuple[list[tuple[Path, RefinerRecipe]], dict[str, str]]:
    """Returns the refiner recipes of a folder, and what is wrong with each that cannot be read, by file name."""
    return read_each(folder, load_refiner_recipe)


def read_reference_model_recipes(folder: Path) -> tuple[list[tuple[Path, ReferenceModelRecipe]], dict[str, str]]:
    """Returns the recipes of reference models in a folder, and what is wrong with each that cannot be read."""
    return read_each(folder, load_reference_model_recipe)


def read_ablations(folder: Path) -> tuple[list[tuple[Path, AblationRecipe]], dict[str, str]]:
    """Returns the ablation recipes of a folder, and what is wrong with each that cannot be read, by file name."""
    return read_each(folder, load_ablation)


def read_each(folder: Path, load: Callable[[Path], Loaded]) -> tuple[list[tuple[Path, Loaded]], dict[str, str]]:
    """Returns what ``load`` makes of each YAML file of a folder, and the message of each that it refuses."""
    read: list[tuple[Path, Loaded]] = []
    broken: dict[str, str] = {}
    for file in sorted(folder.glob("*.yaml")):
        try:
            read.append((file, load(file)))
        except ConfigError as error:
            broken[file.stem] = f"{file.parent.name}/{file.name}: {error}"
    return read, broken
