"""The arms of an ablation: every corpus that is compared, by configuration, and the runs that train on them."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from corpusmill.ablation.config import AblationRecipe, StudentConfig, share_text
from corpusmill.config import fingerprint
from corpusmill.errors import ConfigError
from corpusmill.pruning.config import SelectionConfig

MAX_RUNS = 1024
"""Mapped tasks that Airflow makes of one list by default (``core.max_map_length``)."""
RESULT_VERSION = 2
"""Raised when code changes what a run measures: then nothing stored is taken."""
NO_PRUNING = "no pruning"
METRICS = {"memorization": "memorization", "top_k_hit_rate": "top_k", "excess_nll": "excess"}
"""What a score needs beyond the sums that every scoring gives."""
SCORED_WITH = frozenset({"checkpoint", "context", "dtype", "mem_tokens", "baseline", "top_k"})
"""Settings of a reference that its training does not depend on."""


@dataclass(frozen=True)
class Arm:
    """One corpus, a pure function of the pool.

    Attributes:
        label: What it is called, unique in a recipe.
        kind: ``none``, ``random``, ``score`` or ``stages``.
        fraction: Share to keep, exact; ``"1"`` for ``none`` and ``stages``.
        which: Part of the order of ``score``.
        column: Score of ``score``.
        reference: Name of its reference model.
        steps: Stages of ``stages``, each with its settings.
        by: Strata of ``score`` in each of which the share holds.
        weight: What the share of ``score`` is a share of.
    """

    label: str
    kind: str
    fraction: str = "1"
    which: str = ""
    column: str = ""
    reference: str = ""
    steps: tuple[tuple[str, dict[str, Any]], ...] = ()
    by: tuple[str, ...] = ()
    weight: str = "rows"

    def selection(self, seed: int) -> SelectionConfig:
        """Returns the selection of a ``random`` or ``score`` arm; the seed draws random arms, scores are drawn once."""
        if self.kind == "random":
            return SelectionConfig(column="random", fraction=self.fraction, which="bottom", seed=seed)
        order = {"column": self.column, "fraction": self.fraction, "which": self.which}
        return SelectionConfig.load({**order, "by": self.by, "weight": self.weight})


@dataclass(frozen=True)
class Run:
    """One student of one arm: what a mapped task does.

    Attributes:
        arm: Its corpus.
        student: Name of the student's settings.
        seed: Of initialisation, data order, and of a random arm's draw.
    """

    arm: Arm
    student: str
    seed: int

    @property
    def label(self) -> str:
        """What the task is called in the UI and in the log."""
        return f"{self.arm.label} | {self.student} | seed {self.seed}"


def arms_of(recipe: AblationRecipe) -> list[Arm]:
    """Returns every arm of a recipe, in its order.

    Raises:
        ConfigError: Two arms have one label, for instance because a share is given twice.
    """
    arms = [Arm(NO_PRUNING, "none")] if recipe.baseline else []
    arms += [Arm(f"random {share_text(f)}", "random", f) for f in recipe.random]
    arms += list(_score_arms(recipe))
    for name, steps in recipe.corpora.items():
        flat = tuple((stage, settings) for step in steps for stage, settings in step.items())
        arms.append(Arm(name, "stages", steps=flat))
    labels = [arm.label for arm in arms]
    if twice := sorted({label for label in labels if labels.count(label) > 1}):
        raise ConfigError(f"arms {twice} are given twice in recipe {recipe.name!r}; name each once")
    return arms


def _score_arms(recipe: AblationRecipe) -> Iterator[Arm]:
    for grid in recipe.scores:
        axes = (grid.references, grid.columns, grid.strata, grid.weights, grid.fractions, grid.which)
        for reference, column, by, weight, fraction, which in product(*axes):
            share = share_text(fraction) + ("" if weight == "rows" else f" of {weight.removeprefix('n_')}")
            within = f" within {' and '.join(by)}" if by else ""
            label = f"{column} {which} {share}{within} by {reference}"
            yield Arm(label, "score", fraction, which, column, reference, by=by, weight=weight)


def runs_of(recipe: AblationRecipe) -> list[Run]:
    """Returns every run: arms x students x seeds, cheap students first.

    Raises:
        ConfigError: There are more than Airflow maps to tasks.
    """
    arms = arms_of(recipe)
    students = sorted(recipe.students.items(), key=lambda item: item[1].kind != "trigram")
    runs = [Run(arm, name, seed) for name, student in students for seed in student.seeds for arm in arms]
    if len(runs) > MAX_RUNS:
        raise ConfigError(f"recipe {recipe.name!r} makes {len(runs)} runs, more than {MAX_RUNS}; split it in two")
    return runs


def run_of(recipe: AblationRecipe, label: str) -> Run:
    """Returns the run of a label.

    Raises:
        ConfigError: The recipe has no such run.
    """
    for run in runs_of(recipe):
        if run.label == label:
            return run
    raise ConfigError(f"recipe {recipe.name!r} has no run {label!r}; it has {[r.label for r in runs_of(recipe)][:5]}")


def columns_of(recipe: AblationRecipe, reference: str) -> list[str]:
    """Returns the scores that arms need of a reference."""
    return sorted({c for grid in recipe.scores if reference in grid.references for c in grid.columns})


def further_metrics(columns: Sequence[str]) -> list[str]:
    """Returns what the scores need beyond the sums that every scoring gives: values of `METRICS`."""
    return sorted({METRICS[column] for column in columns if column in METRICS})


def used_references(recipe: AblationRecipe) -> list[str]:
    """Returns the references that an arm needs; one that no arm names is not trained."""
    return [name for name in recipe.references if columns_of(recipe, name)]


def reference_key(recipe: AblationRecipe, pool_key: str, name: str) -> str:
    """Returns what identifies a trained reference; ``checkpoint`` is apart, it reads another folder of it."""
    config = recipe.references[name].model_dump(mode="json", exclude=set(SCORED_WITH))
    return fingerprint([pool_key, config, "reference"])


def checkpoints_of(recipe: AblationRecipe, name: str) -> list[int]:
    """Returns the steps at which a reference's training must be saved: it is trained once for all that share it."""
    key = reference_key(recipe, "", name)
    sharing = (r for n, r in recipe.references.items() if reference_key(recipe, "", n) == key)
    return sorted({reference.checkpoint for reference in sharing if reference.checkpoint is not None})


def score_key(recipe: AblationRecipe, pool_key: str, name: str) -> str:
    """Returns what identifies the scores of the pool by a reference."""
    reference = recipe.references[name]
    needs = further_metrics(columns_of(recipe, name))
    baseline = recipe.references[reference.baseline] if reference.baseline and "excess" in needs else None
    models = [each and each.model_dump(mode="json", exclude={"baseline"}) for each in (reference, baseline)]
    return fingerprint([pool_key, models, needs, "scores"])


def run_key(recipe: AblationRecipe, pool_key: str, run: Run, measures: Any) -> str:
    """Returns what identifies a result: everything that it depends on, and nothing else of the recipe.

    Args:
        recipe: The recipe.
        pool_key: Identity of the pool's content.
        run: The run.
        measures: Settings of what is measured, with digests of the files.
    """
    scores = score_key(recipe, pool_key, run.arm.reference) if run.arm.reference else ""
    student = student_identity(recipe.students[run.student])
    arm = {k: v for k, v in asdict(run.arm).items() if k not in {"label", "reference"}}
    return fingerprint([RESULT_VERSION, pool_key, scores, arm, student, run.seed, measures])


def student_identity(student: StudentConfig) -> dict[str, Any]:
    """Returns the settings of a student that a result depends on."""
    if student.kind == "trigram":
        return {"kind": "trigram"}
    return student.model_dump(mode="json", exclude={"seeds", "checkpoint_every"})
