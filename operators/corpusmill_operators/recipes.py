"""Reads the recipes of a folder for the DAG file: one that cannot be read must not take the others' DAGs along."""

from pathlib import Path
from typing import NamedTuple

from corpusmill.errors import ConfigError
from corpusmill.recipe import Recipe, load_recipe
from corpusmill.reference_model_recipe import ReferenceModelRecipe, load_reference_model_recipe
from corpusmill.refiner_recipe import RefinerRecipe, load_refiner_recipe
from corpusmill_operators.releases import Release, releases_of


class ReadRecipe(NamedTuple):
    """A recipe with its file and the releases that its timetable knows."""

    file: Path
    recipe: Recipe
    releases: tuple[Release, ...]


def read_recipes(folder: Path) -> tuple[list[ReadRecipe], dict[str, str]]:
    """Returns the recipes of a folder, and what is wrong with each that cannot be read, by file name."""
    read: list[ReadRecipe] = []
    broken: dict[str, str] = {}
    for file in sorted(folder.glob("*.yaml")):
        try:
            recipe = load_recipe(file)
            read.append(ReadRecipe(file, recipe, releases_of(recipe.source, folder)))
        except ConfigError as error:
            broken[file.stem] = str(error)
    return read, broken


def read_refiner_recipes(folder: Path) -> tuple[list[tuple[Path, RefinerRecipe]], dict[str, str]]:
    """Returns the refiner recipes of a folder, and what is wrong with each that cannot be read, by file name."""
    read: list[tuple[Path, RefinerRecipe]] = []
    broken: dict[str, str] = {}
    for file in sorted(folder.glob("*.yaml")):
        try:
            read.append((file, load_refiner_recipe(file)))
        except ConfigError as error:
            broken[file.stem] = str(error)
    return read, broken


def read_reference_model_recipes(folder: Path) -> tuple[list[tuple[Path, ReferenceModelRecipe]], dict[str, str]]:
    """Returns the recipes of reference models in a folder, and what is wrong with each that cannot be read."""
    read: list[tuple[Path, ReferenceModelRecipe]] = []
    broken: dict[str, str] = {}
    for file in sorted(folder.glob("*.yaml")):
        try:
            read.append((file, load_reference_model_recipe(file)))
        except ConfigError as error:
            broken[file.stem] = str(error)
    return read, broken
