"""Versions of Python and packages, extras, and how often the Airflow plugin is registered."""

import os
import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, entry_points, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from corpusmill.doctor.finding import Finding, error, ok, warning

MINIMUM_PYTHON = (3, 11)
EXTRA_OF_MODULE = {"airflow": "DAGs", "crawl": "ingestion and rules", "models": "model stages", "validation": "audits"}
"""Extras that a whole refresh needs, and for what."""
EXECUTOR_EXTRAS = {"CeleryExecutor": "celery", "KubernetesExecutor": "kubernetes"}
NAMES_SHOWN = 5
PLUGIN_CLASS = "CorpusmillPlugin"


def check_python(running: tuple[int, ...] = sys.version_info[:3]) -> Iterator[Finding]:
    """Compares the interpreter with what the package needs."""
    shown = ".".join(map(str, running))
    needed = ".".join(map(str, MINIMUM_PYTHON))
    if running[:2] < MINIMUM_PYTHON:
        yield error("python", f"Python {shown}, expected {needed} or newer", f"install Python {needed} or newer")
    else:
        yield ok("python", f"Python {shown}")


def check_packages(requirements: list[str] | None = None, executor: str | None = None) -> Iterator[Finding]:
    """Compares installed packages with what corpusmill and its extras ask for.

    Args:
        requirements: As in package metadata; None takes corpusmill's own.
        executor: Airflow's executors, whose extras are needed too; None takes ``AIRFLOW__CORE__EXECUTOR``.
    """
    wanted = [Requirement(text) for text in (requires("corpusmill") if requirements is None else requirements) or []]
    configured = os.environ.get("AIRFLOW__CORE__EXECUTOR", "") if executor is None else executor
    extras = ["", *EXTRA_OF_MODULE, *(extra for name, extra in EXECUTOR_EXTRAS.items() if name in configured)]
    for extra in extras:
        needed = [r for r in wanted if _belongs(r, extra)]
        missing = sorted(r.name for r in needed if _installed(r.name) is None)
        wrong = [
            f"{r.name} {found} (expected {r.specifier})"
            for r in needed
            if (found := _installed(r.name)) is not None and not r.specifier.contains(Version(found), prereleases=True)
        ]
        check = f"extra {extra}" if extra else "packages"
        install = f"pip install -c constraints.txt 'corpusmill[{extra}]'" if extra else "pip install corpusmill again"
        if wrong:
            yield error(check, f"versions do not fit: {_few(wrong)}", install)
        elif missing and not extra:
            yield error(check, f"missing: {_few(missing)}", install)
        elif missing:
            purpose = EXTRA_OF_MODULE.get(extra, "the configured executor")
            yield warning(check, f"missing: {_few(missing)}; needed by {purpose}", f"where these run: {install}")
        else:
            yield ok(check, f"{len(needed)} packages fit")


def check_constraints(place: Path) -> Iterator[Finding]:
    """Compares installed packages with the versions that the project was tested with; says nothing without the file."""
    if not place.is_file():
        return
    pinned = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;+]+)", place.read_text(encoding="utf-8"), re.MULTILINE)
    other = [
        f"{name} {found} (tested: {pin})"
        for name, pin in pinned
        if (found := _installed(name)) is not None and found.partition("+")[0] != pin
    ]
    if other:
        yield warning(
            "pinned versions",
            f"{len(other)} of {len(pinned)} differ from {place.name}: {_few(other)}",
            f"pip install -c {place} corpusmill, or test your versions",
        )
    else:
        yield ok("pinned versions", f"all that are installed are as in {place.name}")


def check_plugin(plugins: Path) -> Iterator[Finding]:
    """Counts the registrations of the Airflow plugin: a second one silently drops other plugins in task processes."""
    files = [str(f) for f in sorted(plugins.glob("*.py")) if PLUGIN_CLASS in f.read_text("utf-8", "replace")]
    points = [f"entry point {p.name}" for p in entry_points(group="airflow.plugins") if "corpusmill" in p.value]
    found = files + points
    if len(found) > 1:
        yield error("plugin", f"registered {len(found)} times: {', '.join(found)}", "keep one of them")
    elif not found:
        yield warning(
            "plugin",
            f"not in {plugins}, nor an entry point: DAGs without the timetable cannot be loaded",
            "copy plugins/corpusmill_plugin.py into Airflow's plugins folder, or set AIRFLOW__CORE__PLUGINS_FOLDER",
        )
    else:
        yield ok("plugin", f"registered once: {found[0]}")


def plugins_folder() -> Path:
    """Returns Airflow's plugins folder: as configured, else the project's, else the one in Airflow's home."""
    if configured := os.environ.get("AIRFLOW__CORE__PLUGINS_FOLDER"):
        return Path(configured)
    home = Path(os.environ.get("AIRFLOW_HOME", "~/airflow")).expanduser()
    return Path("plugins") if Path("plugins").is_dir() else home / "plugins"


def _belongs(requirement: Requirement, extra: str) -> bool:
    if not extra:
        return requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    only_extra = requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})
    return only_extra and requirement.marker is not None and requirement.marker.evaluate({"extra": extra})


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _few(names: list[str]) -> str:
    rest = len(names) - NAMES_SHOWN
    return ", ".join(names[:NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
