"""Base of every setting class, and the fingerprint that stands in commit keys.

Settings are frozen pydantic models: unknown keys are errors, every field carries a docstring with its unit and source.
This module imports pydantic only, so that DAG files can import settings at parse time.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Self

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
            raise ConfigError(describe_validation_error(cls.__name__, error)) from error


def describe_validation_error(name: str, error: ValidationError) -> str:
    """Returns one line per wrong field: its place, its value, and what was expected."""
    lines = [f"{name} is not valid:"]
    for item in error.errors(include_url=False):
        place = ".".join(str(part) for part in item["loc"]) or "(whole)"
        lines.append(f"  {place}={item.get('input')!r}: {item['msg']}")
    return "\n".join(lines)
