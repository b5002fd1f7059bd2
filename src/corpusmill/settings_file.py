"""Reads YAML files: settings that a command was given, and recipes."""

from pathlib import Path
from typing import Any

import yaml

from corpusmill.errors import ConfigError


def read_settings(path: Path, option: str) -> dict[str, Any]:
    """Returns the mapping of a YAML file; an empty file is an empty one.

    Args:
        path: The file.
        option: The command's option, for messages.

    Raises:
        ConfigError: The file is absent, is not YAML, or holds no mapping.
    """
    try:
        values = yaml.safe_load(exact_text(path))
    except yaml.YAMLError as error:
        raise ConfigError(f"{option} {str(path)!r} is not YAML: {error}") from error
    if not isinstance(values, dict | None):
        raise ConfigError(f"{option} {str(path)!r} holds {type(values).__name__}, expected a mapping")
    return values or {}


def read_recipe(path: Path, kind: str, expected: str = "a mapping") -> dict[str, Any]:
    """Returns the mapping of a recipe's YAML file.

    Args:
        path: The file.
        kind: What it is, for messages.
        expected: What it must hold, for messages.

    Raises:
        ConfigError: The file is absent (the message lists the recipes beside it), is not YAML, or holds no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml"))) or "none"
        raise ConfigError(f"{kind} {str(path)!r} does not exist; recipes beside it: {known}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{kind} {str(path)!r} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{kind} {str(path)!r} holds {type(values).__name__}, expected {expected}")
    return values


def exact_text(path: Path) -> str:
    """Returns a file's text with its line ends as they are, which `Path.read_text` would change.

    Raises:
        ConfigError: There is no such file.
    """
    if not path.is_file():
        raise ConfigError(f"{str(path)!r} is not a file")
    return path.read_bytes().decode("utf-8", errors="surrogateescape")
