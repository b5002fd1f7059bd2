"""Writes the reference pages into a folder."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from corpusmill.reference.reasons import reasons_page
from corpusmill.reference.settings import (
    ablation_settings_page,
    reference_model_settings_page,
    refiner_settings_page,
    settings_page,
)
from corpusmill.reference.tables import tables_page

PAGES: dict[str, Callable[[], str]] = {
    "reasons.md": reasons_page,
    "tables.md": tables_page,
    "config.md": settings_page,
    "refiner_config.md": refiner_settings_page,
    "reference_model_config.md": reference_model_settings_page,
    "ablation_config.md": ablation_settings_page,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the pages; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m corpusmill.reference", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    folder: Path = parser.parse_args(arguments).folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / name).write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
