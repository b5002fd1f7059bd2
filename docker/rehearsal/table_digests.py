"""Prints rows and digest of every table of a recipe as JSON; the environment says which lakehouse.

``python -m rehearsal.table_digests RECIPE FOLDER``. A digest is over the sorted rows: the order of files plays no part.
The rows go to ``FOLDER/<table>.jsonl``, so that a difference can be looked at.
"""

import hashlib
import json
import sys
from pathlib import Path


def main(recipe: str, folder: Path) -> int:
    """Prints ``{table: {"rows": N, "digest": ...}}``."""
    from corpusmill.runner.open_lakehouse import open_lakehouse
    from corpusmill.schema import RECIPE_TABLES

    folder.mkdir(parents=True, exist_ok=True)
    lake = open_lakehouse()
    found = {}
    for table in RECIPE_TABLES:
        rows = lake.table(f"{recipe}.{table.name}").scan(None).to_pylist()
        lines = sorted(json.dumps(row, sort_keys=True, default=str) for row in rows)
        text = "\n".join(lines)
        (folder / f"{table.name}.jsonl").write_text(text)
        found[table.name] = {"rows": len(lines), "digest": hashlib.sha256(text.encode()).hexdigest()}
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
