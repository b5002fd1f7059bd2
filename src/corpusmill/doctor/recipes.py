"""What recipes name: models, release lists, model servers."""

import datetime as dt
import os
import re
from collections.abc import Iterator
from pathlib import Path

from corpusmill.doctor.airflow_database import AirflowDatabase
from corpusmill.doctor.finding import Finding, error, ok, warning
from corpusmill.errors import ConfigError, CorpusmillError
from corpusmill.lakehouse.catalog import Lakehouse
from corpusmill.modeling.endpoints import VARIABLE
from corpusmill.recipe import Recipe, load_recipe
from corpusmill.release_list import is_watched, list_place, read_releases
from corpusmill.runner.model_registry import REGISTERED, fetch_model, find_model
from corpusmill.runner.models import further_models, local_folder, pin_model

STALE_DAYS = 3.0
"""Age of a watched list from which the daily look must have failed."""
STAGES = ("refine_documents", "refine_chunks", "score")


def read_recipe_folder(folder: Path) -> tuple[list[tuple[Path, Recipe]], list[Finding]]:
    """Returns the recipes of a folder, and a finding for each that cannot be read."""
    read, findings = [], []
    for file in sorted(folder.glob("*.yaml")):
        try:
            read.append((file, load_recipe(file)))
        except ConfigError as problem:
            findings.append(error(f"recipe {file.stem}", str(problem), f"correct {file}"))
    if not read and not findings:
        todo = "run this in the project's folder, or set CORPUSMILL_RECIPES"
        findings.append(warning("recipes", f"no recipe in {folder}", todo))
    return read, findings


def check_models(lake: Lakehouse, recipe: Recipe) -> Iterator[Finding]:
    """Looks for the models of a recipe and compares their digests; asks no hub."""
    for stage in STAGES:
        config = getattr(recipe, stage)
        if config is None or not config.model:
            continue
        settings = [config, *(one for _, _, one in further_models(config))]
        for one in settings:
            yield _model(lake, f"model {recipe.name}.{stage}", one)


def _model(lake: Lakehouse, check: str, config: object) -> Finding:
    name, sha256 = str(getattr(config, "model", "")), getattr(config, "sha256", None)
    revision = getattr(config, "revision", None)
    try:
        if name.startswith(REGISTERED):
            pin_model(name, None, sha256)
            fetch_model(lake, find_model(lake, name))
            return ok(check, f"{name} is registered and whole")
        if local_folder(name) is not None:
            return ok(check, f"{name}, sha256 {pin_model(name, None, sha256).sha256[:12]}")
    except (CorpusmillError, OSError) as problem:
        return error(check, str(problem), "build or copy the model again, or correct the recipe")
    if _cached(name, revision):
        return ok(check, f"{name} is in the hub's cache")
    what = f"{name} is not on this machine; the first run downloads it"
    return warning(check, what, f"hf download {name}" + (f" --revision {revision}" if revision else ""))


def _cached(name: str, revision: str | None) -> bool:
    """Returns whether the hub's cache holds a model; asks nobody."""
    hub = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "hub"
    cache = Path(os.environ.get("HF_HUB_CACHE") or hub).expanduser()
    folder = cache / f"models--{name.replace('/', '--')}"
    exact = bool(revision and re.fullmatch(r"[0-9a-f]{40}", revision))
    return any((folder / "snapshots").glob(f"{revision if exact else '*'}/config.json"))


def check_release_list(file: Path, recipe: Recipe, now: dt.datetime) -> Iterator[Finding]:
    """Reads the release list of a recipe and looks when its source was last asked."""
    check = f"releases {recipe.name}"
    place = list_place(recipe.source, file.parent)
    watched = is_watched(recipe.source, file.parent)
    if watched and not place.exists():
        yield warning(check, f"{place} does not exist yet: no run will be made", "switch DAG crawl_watch on")
        return
    try:
        releases = read_releases(place)
    except (ConfigError, OSError) as problem:
        yield error(check, str(problem), f"correct {place}, or delete it and let crawl_watch make it anew")
        return
    age = (now - dt.datetime.fromtimestamp(place.stat().st_mtime, dt.UTC)).total_seconds() / 86_400
    newest = f"{len(releases)} releases, newest {releases[-1][0]}" if releases else "no releases"
    if watched and age > STALE_DAYS:
        what = f"{newest}; the source was last asked {age:.0f} days ago"
        yield warning(check, what, "see whether DAG crawl_watch is switched on and why it fails")
    else:
        yield ok(check, newest)


def check_endpoints(recipe: Recipe, database: AirflowDatabase) -> Iterator[Finding]:
    """Looks whether the model servers that a recipe names are described."""
    for stage in STAGES:
        name = getattr(getattr(recipe, stage), "endpoint", None)
        if not name or "://" in name:
            continue
        check, variable = f"connection {name}", VARIABLE + name.upper().replace("-", "_")
        if variable in os.environ or f"AIRFLOW_CONN_{name.upper()}" in os.environ:
            yield ok(check, "described in the environment")
            continue
        known = database.connections()
        todo = f"airflow connections add {name} --conn-type http --conn-host http://HOST:8000/v1, or set {variable}"
        if known is None:
            yield warning(check, "unknown: Airflow's database cannot be read here", todo)
        elif name in known:
            yield ok(check, "is an Airflow connection")
        else:
            yield error(check, f"{recipe.name}.{stage} names it, and nothing describes it", todo)
