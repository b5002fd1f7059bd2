"""Where a training saves its model on the way: after steps, or after shares of one pass over the data."""

import math

from corpusmill.errors import ConfigError


def checkpoint_step(mark: str | int, n_sequences: int, batch_size: int) -> int:
    """Returns the step at which a checkpoint is due: a number of steps, or a share of the data such as ``"14%"``.

    The share is of one pass over all sequences, as the paper counts it: 250 steps of 2048 sequences are 14 % of D.

    Raises:
        ConfigError: The mark is neither.
    """
    text = str(mark).strip()
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100
            step = math.ceil(share * n_sequences / batch_size - 1e-9)
            if math.isfinite(share) and share > 0:
                return max(step, 1)
        elif int(text) > 0:
            return int(text)
    except (ValueError, OverflowError):
        pass
    raise ConfigError(f"checkpoint {mark!r} is neither a step above 0 nor a share of the data such as '14%'")
