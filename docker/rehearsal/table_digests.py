"""Prints rows and digest of every table of a recipe as JSON; the environment says which lakehouse.

``python -m rehearsal.table_digests RECIPE``. A digest is over the sorted rows: the order of files plays no part.
"""

import hashlib
import json
import sys


def main(recipe: str) -> int:
    """Prints ``{table: {"rows": N, "digest": ...}}``."""
    from corpusmill.runner.open_lakehouse import open_lakehouse
    from corpusmill.schema import RECIPE_TABLES

    lake = open_lakehouse()
    found = {}
    for table in RECIPE_TABLES:
        rows = lake.table(f"{recipe}.{table.name}").scan(None).to_pylist()
        lines = sorted(json.dumps(row, sort_keys=True, default=str) for row in rows)
        found[table.name] = {"rows": len(lines), "digest": hashlib.sha256("\n".join(lines).encode()).hexdigest()}
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
