"""The commands around refiners: build one, measure one, verify a public one, execute stored programs again."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from corpusmill.errors import ConfigError
from corpusmill.prox.trainers import KINDS, trainer_of
from corpusmill.settings_file import read_settings

Say = Callable[[str], None]
EXIT_FAILED = 1
DEFAULT_MINUTES = 3.0
_WITHOUT_RECIPE = ("kind", "train", "dev", "minutes", "steps", "seed", "crawls", "judged", "base", "out")


def add_refiner_commands(commands: Any, say: Say, out: Say) -> None:
    """Adds the commands to the parser.

    Args:
        commands: The parser's subparsers.
        say: Writes a line of progress.
        out: Writes a line of the result.
    """
    _add_build(commands, say, out)

    evaluate = commands.add_parser("evaluate-refiner", help="measure a refiner on labelled pages or judged documents")
    evaluate.add_argument("model", metavar="MODEL", help="folder, hub id, bundled:NAME or registered:NAME@VERSION")
    evaluate.add_argument("file", type=Path, metavar="FILE", help="labelled pages, judged documents, or examples")
    evaluate.add_argument("--teacher", type=Path, metavar="F", help="other labels of the same texts, for the agreement")
    evaluate.set_defaults(run=lambda parsed: _evaluate(parsed, out))

    verify = commands.add_parser("verify-refiner", help="check a public ProX refiner against the published facts")
    verify.add_argument("model", metavar="MODEL", help="hub id such as gair-prox/web-chunk-refining-lm, or its folder")
    verify.add_argument("--revision", metavar="R", help="commit, tag or branch on the hub")
    verify.add_argument("--stage", choices=["documents", "chunks"], help="what it was made for, if its name hides it")
    verify.add_argument("--pages", type=Path, metavar="F", help="JSON lines with 'text' or 'lines'; measured too")
    verify.add_argument("--n-pages", type=int, default=200, metavar="N", help="pages to measure on (200)")
    verify.set_defaults(run=lambda parsed: _verify(parsed, say, out))

    replay = commands.add_parser("replay", help="execute a crawl's stored programs again, without a model")
    replay.add_argument("recipe", metavar="RECIPE", help="recipe name, or its YAML file")
    replay.add_argument("--crawl", required=True, metavar="CRAWL", help="a crawl that the recipe has refined")
    replay.add_argument("--policy", type=Path, metavar="F", help="YAML of another execution policy: what would change")
    replay.set_defaults(run=lambda parsed: _replay(parsed, say, out))


def _add_build(commands: Any, say: Say, out: Say) -> None:
    build = commands.add_parser(
        "build-refiner",
        help="train and measure a refiner",
        description="From labelled pages (--kind, --train, --dev, --out), or by a refiner recipe (--recipe) through "
        "the lakehouse, as the DAG build_refiner_<name> does.",
    )
    build.add_argument("--recipe", type=Path, metavar="F", help="a refiner recipe (dags/refiners/*.yaml)")
    build.add_argument(
        "--kind", choices=KINDS, help="labeller: a logit a line; the others write programs, by line or as text"
    )
    build.add_argument("--train", type=Path, metavar="F", help="labelled pages or training examples, JSON lines")
    build.add_argument("--dev", type=Path, metavar="F", help="the same of other domains; they choose and measure")
    length = build.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, metavar="N", help="training time; 3 unless --steps is given")
    length.add_argument("--steps", type=int, metavar="N", help="training steps; repeatable to the bit with a seed")
    build.add_argument("--seed", type=int, metavar="N", help="seed of everything random (0)")
    build.add_argument(
        "--crawls", type=Path, metavar="DIR", help="labeller, program-writer: crawls with gold text, for main content"
    )
    build.add_argument("--judged", type=Path, metavar="F", help="labeller: documents with people's verdicts")
    build.add_argument("--base", metavar="MODEL", help="program-model: folder or hub id of a base, or new:PRESET")
    build.add_argument("--out", type=Path, metavar="DIR", help="model folder to write")
    build.set_defaults(run=lambda parsed: _build(parsed, say, out))


def _build(parsed: argparse.Namespace, say: Say, out: Say) -> int:
    if parsed.recipe is not None:
        if unused := [f"--{name}" for name in _WITHOUT_RECIPE if getattr(parsed, name) is not None]:
            raise ConfigError(f"{', '.join(unused)} beside --recipe {str(parsed.recipe)!r}: the recipe says that")
        return _build_by_recipe(parsed.recipe, say, out)
    missing = [f"--{name}" for name in ("kind", "train", "dev", "out") if getattr(parsed, name) is None]
    if missing:
        raise ConfigError(f"build-refiner needs {', '.join(missing)}; or give --recipe FILE")
    own = {"labeller": ("crawls", "judged"), "program-writer": ("crawls",), "program-model": ("base",)}[parsed.kind]
    given = {name: getattr(parsed, name) for name in ("crawls", "judged", "base") if getattr(parsed, name) is not None}
    if wrong := sorted(set(given) - set(own)):
        raise ConfigError(f"--{wrong[0]} means nothing to --kind {parsed.kind}; it takes {', '.join(own) or 'none'}")
    options: dict[str, Any] = {"judged_documents" if k == "judged" else k: v for k, v in given.items()}
    quality = trainer_of(parsed.kind)(
        parsed.train,
        parsed.dev,
        parsed.out,
        minutes=DEFAULT_MINUTES if parsed.steps is None and parsed.minutes is None else parsed.minutes,
        steps=parsed.steps,
        seed=parsed.seed or 0,
        progress=say,
        **options,
    )
    out(json.dumps(quality))
    return 0


def _build_by_recipe(path: Path, say: Say, out: Say) -> int:
    import os
    import time

    from corpusmill.refiner_recipe import load_refiner_recipe
    from corpusmill.runner.building import chain
    from corpusmill.runner.chain import initialise

    recipe = load_refiner_recipe(path)
    initialise([])
    run_id = f"build__{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}__{os.getpid()}"
    out(json.dumps(chain.build(recipe.model_dump(mode="json"), run_id, say)))
    return 0


def _evaluate(parsed: argparse.Namespace, out: Say) -> int:
    from corpusmill.prox.refiner_evaluation import evaluate

    out(json.dumps(evaluate(_model_place(parsed.model), parsed.file, teacher=parsed.teacher)))
    return 0


def _model_place(name: str) -> Path | str:
    """Returns the folder of a named model; an existing folder wins over a hub id of the same name."""
    from corpusmill.runner.model_registry import REGISTERED, fetch_model, find_model
    from corpusmill.runner.models import local_folder

    if name.startswith(REGISTERED):
        from corpusmill.runner.open_lakehouse import open_lakehouse

        lake = open_lakehouse()
        return fetch_model(lake, find_model(lake, name, only_one=True))
    if Path(name).is_dir():
        return Path(name)
    found = local_folder(name)
    if found is not None:
        return found
    from corpusmill.modeling.load import model_folder

    return model_folder(name)


def _verify(parsed: argparse.Namespace, say: Say, out: Say) -> int:
    from corpusmill.prox.public_refiners import verify_public_refiner

    report = verify_public_refiner(
        parsed.model, parsed.revision, parsed.pages, n_pages=parsed.n_pages, stage=parsed.stage, progress=say
    )
    out(json.dumps(report.as_dict()))
    return 0 if report.passed else EXIT_FAILED


def _replay(parsed: argparse.Namespace, say: Say, out: Say) -> int:
    from corpusmill.recipe import load_recipe
    from corpusmill.runner.open_lakehouse import open_lakehouse
    from corpusmill.runner.replay import replay

    policy = None if parsed.policy is None else read_settings(parsed.policy, "--policy")
    file = Path(parsed.recipe)
    recipe = load_recipe(file).name if file.suffix in {".yaml", ".yml"} else parsed.recipe
    found = replay(open_lakehouse(), recipe, parsed.crawl, policy, say)
    out(json.dumps(found, default=str))
    return EXIT_FAILED if policy is None and found["n_equal"] != found["n_documents"] else 0
