"""The reference models of a scoring run, loaded and checked to belong together."""

from dataclasses import dataclass
from typing import Any

from corpusmill.config import fingerprint
from corpusmill.errors import ConfigError, ModelError
from corpusmill.modeling.load import TextTokenizer, load_causal_lm, load_tokenizer, model_folder, model_sha256
from corpusmill.modeling.onednn_linear import use_onednn
from corpusmill.pruning.causal_head import CausalHead, check_model
from corpusmill.pruning.config import FurtherModel, ScoringConfig

SCORING_VERSION = 2
"""Version of the arithmetic; raised when equal inputs may give other scores."""


@dataclass(frozen=True)
class LoadedModel:
    """One reference model, ready to score.

    Attributes:
        name: As the settings name it.
        model: The transformers model.
        head: Its head.
        tokenizer: Its tokenizer.
        sha256: Digest of its folder.
    """

    name: str
    model: Any
    head: CausalHead
    tokenizer: TextTokenizer
    sha256: str

    @property
    def n_positions(self) -> int | None:
        """Tokens that the model was made for, None where it names no number."""
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return None if positions is None else int(positions)


@dataclass(frozen=True)
class LoadedModels:
    """All models of one `ScoringConfig`.

    The weights of all of them stay in memory; they run one after the other, so activations of one exist at a time.

    Attributes:
        main: The reference model.
        ensemble: Further models whose EL2N is averaged with the main one's.
        baseline: Second model of the excess loss, or None.
        context: Tokens of a window, the prefix included.
        prefix: Tokens fed before every window.
        key: Score key of what they score.
    """

    main: LoadedModel
    ensemble: tuple[LoadedModel, ...]
    baseline: LoadedModel | None
    context: int
    prefix: tuple[int, ...]
    key: str


def load_models(config: ScoringConfig) -> LoadedModels:
    """Returns the models of the settings.

    Raises:
        ModelError: A model cannot be loaded or is not the expected one.
        ConfigError: The context does not fit a model, tokenizers differ, or a prefix is asked of a model without
            end-of-document token.
    """
    main = load_model(FurtherModel(model=config.model, revision=config.revision, sha256=config.sha256), config)
    context = _context(config, main)
    ensemble = tuple(_partner("ensemble", further, main, context, config) for further in config.ensemble)
    baseline = _partner("baseline", config.baseline, main, context, config) if config.baseline else None
    eod = main.tokenizer.eod_id
    if config.prefix == "eod" and eod is None:
        raise ConfigError(f"prefix='eod' but model {config.model!r} names no end-of-document token; use prefix='none'")
    prefix = (eod,) if config.prefix == "eod" and eod is not None else ()
    shas = [main.sha256, *(m.sha256 for m in ensemble)]
    key = score_key(config, shas, baseline.sha256 if baseline else None, main.tokenizer.sha256, context)
    return LoadedModels(main, ensemble, baseline, context, prefix, key)


def load_model(named: FurtherModel, config: ScoringConfig) -> LoadedModel:
    """Returns one model on the device and in the dtype of the settings.

    Raises:
        ModelError: It cannot be loaded, is not the expected one, or does not fit its tokenizer.
    """
    folder = model_folder(named.model, named.revision)
    sha = model_sha256(folder)
    if named.sha256 is not None and named.sha256 != sha:
        raise ModelError(
            f"model {named.model!r} has sha256 {sha!r}, expected {named.sha256!r}; it changed since it was "
            "pinned: restore the folder, or pin the new one"
        )
    tokenizer = load_tokenizer(str(folder))
    model = load_causal_lm(str(folder), dtype=config.dtype, device=config.device)
    use_onednn(model)
    return LoadedModel(named.model, model, check_model(model, tokenizer.n_vocab), tokenizer, sha)


def score_key(config: ScoringConfig, models: list[str], baseline: str | None, tokenizer_sha: str, context: int) -> str:
    """Returns 16 hex digits that identify what a score depends on; scores with different keys must not be mixed.

    Bytes of all models, revision, tokenizer bytes, dtype, context, prefix policy, unit, k, memorization lengths and
    threshold, and code version. Token budget, head chunk and device are left out: they move scores by rounding only.

    Args:
        config: Settings.
        models: sha256 of the main model and of the ensemble's.
        baseline: sha256 of the excess loss's second model, None for none.
        tokenizer_sha: sha256 of the tokenizer that all of them share.
        context: Tokens of a window.
    """
    return fingerprint(
        {
            "models": models,
            "baseline": baseline,
            "revision": config.revision,
            "tokenizer": tokenizer_sha,
            "dtype": config.dtype,
            "context": context,
            "prefix": config.prefix,
            "memorization": [config.mem_prompt, config.mem_continuation, config.memorization_threshold],
            "top_k": config.top_k if "top_k" in config.metrics else None,
            "unit": config.unit,
            "version": SCORING_VERSION,
        }
    )


def _partner(role: str, named: FurtherModel, main: LoadedModel, context: int, config: ScoringConfig) -> LoadedModel:
    """Returns a model of the ensemble or the baseline, checked to score the same tokens in the same windows."""
    loaded = load_model(named, config)
    if loaded.tokenizer.sha256 != main.tokenizer.sha256:
        raise ConfigError(
            f"{role} model {named.model!r} has tokenizer {loaded.tokenizer.sha256!r}, model {main.name!r} has "
            f"{main.tokenizer.sha256!r}; scores of different tokens cannot be combined: use models with one tokenizer"
        )
    if loaded.n_positions is not None and context > loaded.n_positions:
        raise ConfigError(
            f"context={context} but {role} model {named.model!r} has {loaded.n_positions} positions; set context to at "
            "most that"
        )
    return loaded


def _context(config: ScoringConfig, main: LoadedModel) -> int:
    positions = main.n_positions
    context = config.context if config.context is not None else positions
    if context is None:
        raise ConfigError(
            f"model {config.model!r} names no number of positions; set context, for instance context=2048"
        )
    if positions is not None and context > positions:
        raise ConfigError(
            f"context={context} but model {config.model!r} has {positions} positions; set context to at most that"
        )
    need = config.mem_prompt + config.mem_continuation + (config.prefix == "eod")
    if "memorization" in config.metrics and need > context:
        raise ConfigError(f"memorization needs {need} tokens but the context has {context}; lower mem_prompt")
    return context
