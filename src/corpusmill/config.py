"""Base of every setting class, and the fingerprint that stands in commit keys.

Settings are frozen pydantic models: unknown keys are errors, every field carries a docstring with its unit and source.
This module imports pydantic only, so that DAG files can import settings at parse time.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from corpusmill.errors import ConfigError


def fingerprint(value: object) -> str:
    """Returns 16 hex digits that identify a JSON-serialisable value, independent of key order.

    Args:
        value: Anything `json.dumps` accepts; mappings are sorted by key.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


class StageConfig(BaseModel):
    """Base of all settings: frozen, unknown keys refused, field docstrings kept for the reference pages."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    def fingerprint(self) -> str:
        """Returns 16 hex digits over all fields; equal settings give equal fingerprints on every machine."""
        return fingerprint(self.model_dump(mode="json"))

    @classmethod
    def load(cls, values: Mapping[str, Any]) -> Self:
        """Returns the validated settings.

        Args:
            values: Field values, for instance from a recipe or from an operator's templated ``config``.

        Raises:
            ConfigError: A key is unknown or a value is out of bounds; the message names each of them.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise ConfigError(describe_validation_error(cls, error)) from error


def describe_validation_error(settings: type[BaseModel], error: ValidationError) -> str:
    """Returns one line per wrong field: its place, its value, and what was expected; for an unknown key, the known."""
    lines = [f"{settings.__name__} is not valid:"]
    for item in error.errors(include_url=False):
        place = ".".join(str(part) for part in item["loc"]) or "(whole)"
        known = known_keys(settings, item["loc"][:-1]) if item["type"] == "extra_forbidden" else []
        hint = f"; keys here: {', '.join(known)}" if known else ""
        lines.append(f"  {place}={item.get('input')!r}: {item['msg']}{hint}")
    return "\n".join(lines)


def known_keys(settings: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Returns the keys that a place of some settings takes, none where it holds no settings of one kind.

    Args:
        settings: The class at the top.
        place: Keys from the top down.
    """
    for part in place:
        field = settings.model_fields.get(str(part))
        inside = [] if field is None else _settings_in(field.annotation)
        if len(inside) != 1:
            return []
        settings = inside[0]
    return list(settings.model_fields)


def _settings_in(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [found for part in get_args(annotation) for found in _settings_in(part)]
