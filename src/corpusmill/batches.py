"""Small operations on Arrow columns that several stages need."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa

if TYPE_CHECKING:
    Column: TypeAlias = pa.ChunkedArray[Any]
else:  # generic only in the stubs
    Column: TypeAlias = pa.ChunkedArray


def replace_surrogates(text: str) -> tuple[str, int]:
    """Returns the text with lone surrogates as U+FFFD, and how many there were.

    Arrow strings are UTF-8 and cannot hold lone surrogates; they are replaced where text enters (pages, model output).
    """
    if text.isascii():
        return text, 0
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        n = sum(1 for c in text if "\ud800" <= c <= "\udfff")
        return "".join("\ufffd" if "\ud800" <= c <= "\udfff" else c for c in text), n
    return text, 0


def rows_to_table(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.Table:
    """Returns an Arrow table of the given schema; a column that a row lacks is null.

    Raises:
        KeyError: A row has a key that the schema lacks.
    """
    names = set(schema.names)
    for row in rows:
        if unknown := set(row) - names:
            raise KeyError(f"columns {sorted(unknown)} are not in the schema; expected some of {schema.names}")
    arrays = [pa.array([row.get(f.name) for row in rows], type=f.type) for f in schema]
    return pa.Table.from_arrays(arrays, schema=schema)


def slices(table: pa.Table, max_rows: int) -> Iterator[pa.Table]:
    """Yields consecutive slices of at most ``max_rows`` rows; nothing for an empty table."""
    for start in range(0, table.num_rows, max_rows):
        yield table.slice(start, max_rows)
