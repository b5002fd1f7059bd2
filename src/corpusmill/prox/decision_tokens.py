"""What the first new token of the document stage decides, the same for every backend."""

from corpusmill.prox.config import DocRefinementConfig


def decided_call(
    config: DocRefinementConfig, decision_ids: tuple[int, int], token: int | None, share: float | None, *, cut: bool
) -> str | None:
    """Returns the call for which a first token stands; None where the text that follows must decide.

    One "keep" does not decide: in compat, without a threshold, that of a prompt that was cut. Such a prompt lacks its
    closing tag, its output may run on, and the official code drops the document where "drop" occurs in it anywhere.

    Args:
        config: Threshold, mode and style of the prompt.
        decision_ids: First ids of ``drop_doc()`` and ``keep_doc()``.
        token: The likeliest first token; None where it is none of these two and has no name.
        share: p(drop) / (p(drop) + p(keep)), in [0, 1]; None where it is not known, and no threshold applies.
        cut: Whether the document did not fit into the prompt.
    """
    if token not in decision_ids:
        return None
    if config.threshold is not None and share is not None:
        return "drop_doc()" if share >= config.threshold else "keep_doc()"
    if token == decision_ids[0]:
        return "drop_doc()"
    official = config.execution_mode == "compat" and config.prompt_ids == "compat"
    return None if cut and official and config.threshold is None else "keep_doc()"
