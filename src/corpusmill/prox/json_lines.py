"""Reads and writes files of JSON lines, plain or gzip by their name: labels, examples, documents, pages."""

import contextlib
import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from corpusmill.errors import PermanentDataError


def read_json_lines(path: Path, expected: str) -> Iterator[tuple[int, Any]]:
    """Yields (line number from 1, value) for each line that is not blank.

    Args:
        path: The file; gzip where its name ends in ``.gz``.
        expected: What its lines should be, for messages.

    Raises:
        PermanentDataError: The file is absent, damaged or not UTF-8, or a line is not JSON; the message names the line.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, json.loads(line)
    except FileNotFoundError:
        raise PermanentDataError(f"{path} does not exist; expected a file of JSON lines, each {expected}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise PermanentDataError(
            f"{path} cannot be read behind line {number}: {error}; fetch or make it again"
        ) from error
    except (ValueError, RecursionError) as error:
        where = number if isinstance(error, json.JSONDecodeError | RecursionError) else number + 1
        raise PermanentDataError(
            f"{path} line {where} cannot be read as JSON: {error}; expected on each line {expected}"
        ) from error


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[IO[str]]:
    """Opens a text file for writing, gzip where its name ends in ``.gz``; it appears whole or not at all."""
    part = path.with_name(path.name + ".part")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(part, "wt", encoding="utf-8") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
