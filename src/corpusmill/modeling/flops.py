"""Floating-point operations of training and inference, counted as the ProX paper counts them.

Source: "Programming Every Example" (arXiv 2409.17115), its analysis of computing cost: 6 N D to train, 2 N (prefill +
decode) to run, with N the parameters without embeddings. Attention scores are left out as in the paper: in a prompt of
2,048 tokens they add 20 % to the forward pass of the public refiners, and less in wider models.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corpusmill.errors import ConfigError
from corpusmill.report import StageReport

TRAINING, FORWARD = 6, 2
"""Operations for each parameter and token: a multiplication and an addition forward, twice as many backward."""


def n_parameters(model: Any) -> int:
    """Returns all parameters of a torch module, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def n_without_embeddings(model: Any) -> int:
    """Returns N: the parameters that every token is multiplied with.

    Tables that are looked up (tokens, learned positions) are left out; the output layer counts, also where it shares
    the token table. The paper's figures follow with this reading: its 5e19 operations for refining are 2 N (D_raw +
    D_doc) with the output layer in N, and would be 4.4e19 without.

    Args:
        model: A transformers model; one on the meta device will do.
    """
    from torch.nn import Embedding

    tables = {id(m.weight): m.weight.numel() for m in model.modules() if isinstance(m, Embedding)}
    head = model.get_output_embeddings()
    shared = tables.get(id(head.weight), 0) if head is not None else 0
    return n_parameters(model) - sum(tables.values()) + shared


def model_from_config(config: Any) -> Any:
    """Returns a causal language model of a transformers config without its weights: nothing is allocated.

    Args:
        config: A transformers config, or a mapping as in ``config.json``.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if isinstance(config, Mapping):
        values = dict(config)
        config = AutoConfig.for_model(values.pop("model_type"), **values)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def training_flops(n: float, tokens: float) -> float:
    """Returns the operations of training a model of ``n`` parameters without embeddings on ``tokens``."""
    return TRAINING * n * tokens


def inference_flops(n: float, prefill: float, decode: float = 0.0) -> float:
    """Returns the operations of reading ``prefill`` tokens and writing ``decode`` tokens."""
    return FORWARD * n * (prefill + decode)


def refining_flops(n_document: float, n_chunk: float, raw_tokens: float, kept_tokens: float) -> float:
    """Returns C_ProX: both stages over a corpus, written tokens left out as in the paper's approximation.

    Args:
        n_document: Parameters of the document refiner, which reads all of the corpus.
        n_chunk: Parameters of the chunk refiner, which reads what the document stage keeps.
        raw_tokens: Tokens of the corpus.
        kept_tokens: Tokens of the documents that the document stage keeps.
    """
    return inference_flops(n_document, raw_tokens) + inference_flops(n_chunk, kept_tokens)


def stage_flops(report: StageReport, n: float, new_tokens: float = 0.0) -> float:
    """Returns the operations of one refinement stage from its report.

    Args:
        report: Report of ``refine_documents`` or ``refine_chunks``, of a shard or a crawl.
        n: Parameters of its refiner without embeddings.
        new_tokens: Tokens that the refiner wrote; the document stage writes none, its prefill decides.

    Raises:
        ConfigError: The report counts no prompt tokens, because its stage runs no language model.
    """
    if "prompt_tokens" not in report.metrics:
        raise ConfigError(
            f"the report of stage {report.stage!r} counts no prompt_tokens, only {sorted(report.metrics)}; expected "
            "the report of a refinement stage"
        )
    return inference_flops(n, report.metrics["prompt_tokens"], new_tokens)


def utilisation(flops: float, seconds: float, peak: float) -> float:
    """Returns the share of a device's peak that a computation reached.

    Args:
        flops: Operations done.
        seconds: Device seconds, summed over devices.
        peak: Operations per second of one device, dense, in the type of the weights (A100 312e12, H100 and H200
            989e12 in float16 or bfloat16).
    """
    return flops / (seconds * peak)


@dataclass(frozen=True)
class BreakEven:
    """Training on raw text against refining and then training on less text, at an equal score.

    Attributes:
        raw_flops: Training alone, on raw tokens.
        refined_flops: Refining what is trained on, and training on it.
    """

    raw_flops: float
    refined_flops: float

    @property
    def ratio(self) -> float:
        """Refined over raw; below 1 refining pays."""
        return self.refined_flops / self.raw_flops


def break_even(
    n_trained: float, raw_tokens: float, refined_tokens: float, refining_flops_per_token: float
) -> BreakEven:
    """Returns both totals for one model.

    Args:
        n_trained: Parameters of the trained model without embeddings.
        raw_tokens: Raw tokens that it needs to reach the score.
        refined_tokens: Refined tokens that it needs to reach the same score.
        refining_flops_per_token: Operations of refining for each token that comes out.
    """
    refined = training_flops(n_trained, refined_tokens) + refining_flops_per_token * refined_tokens
    return BreakEven(training_flops(n_trained, raw_tokens), refined)


def affordable_tokens(n_trained: float, flops: float) -> float:
    """Returns how many training tokens the same operations pay for: what refining must save to pay off once."""
    return flops / (TRAINING * n_trained)
