"""The model folder of a program writer: ``model.safetensors`` and ``config.json``, written whole or not at all.

Weights are stored as float16 (statistics as float32) and run as float32. Nothing in the folder is ever executed or
unpickled.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from corpusmill.errors import ModelError
from corpusmill.prox.labeller_folder import CONFIG, WEIGHTS
from corpusmill.prox.writer_network import WriterNetwork, WriterShape

FORMAT = "corpusmill-program-writer/1"
"""Version of the model folder's layout and of the features; another one is refused."""
_FLOAT32 = (".scalar_mean", ".scalar_scale")


@dataclass(frozen=True)
class ProgramWriter:
    """A loaded program writer.

    Attributes:
        network: In eval mode.
        threshold: A scan over lines stops at this probability and above.
        weight: Weight of the decoder's correction, see `writer_network`.
        config: ``config.json`` as read.
    """

    network: WriterNetwork
    threshold: float
    weight: float
    config: dict[str, Any]


def load_writer(model_path: Path) -> ProgramWriter:
    """Returns the program writer of a model folder, read from safetensors and JSON only.

    Raises:
        ModelError: The folder is incomplete, of another format, or its weights do not match their digest or sizes.
    """
    config = _read_config(model_path)
    weights = model_path / WEIGHTS
    try:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        if digest != config["sha256"]:
            raise ModelError(
                f"{weights.name} of model {model_path.name!r} has sha256={digest!r}, {CONFIG} expects "
                f"{config['sha256']!r}; the copy is damaged or mixed, fetch or train the model again"
            )
        with torch.random.fork_rng(devices=[]):  # initial weights are drawn and thrown away
            network = WriterNetwork(WriterShape.from_dict(config["shape"]))
        network.load_state_dict({name: tensor.float() for name, tensor in load_file(weights).items()})
        threshold, weight = float(config["threshold"]), float(config["weight"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise ModelError(
            f"model {model_path.name!r} cannot be loaded: {error}; expected a folder with {WEIGHTS} and {CONFIG} "
            "as `corpusmill build-refiner --kind program-writer` writes it"
        ) from error
    return ProgramWriter(network.eval(), threshold, weight, config)


def _read_config(model_path: Path) -> dict[str, Any]:
    try:
        config = json.loads((model_path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"model {model_path.name!r} has no readable {CONFIG}: {error}; expected a folder written by "
            "`corpusmill build-refiner --kind program-writer`"
        ) from error
    found = config.get("format") if isinstance(config, dict) else config
    if found != FORMAT:
        raise ModelError(f"model {model_path.name!r} has format={found!r}, expected {FORMAT!r}; train it again")
    return dict(config)


def save_writer(folder: Path, network: WriterNetwork, config: dict[str, Any]) -> None:
    """Writes a model folder's two files; `labeller_folder.published_folder` makes the folder appear whole.

    Args:
        folder: An existing folder.
        network: The network.
        config: What else stands in ``config.json`` (``threshold`` and ``weight`` at least); format, sizes and
            digest are filled in.
    """
    tensors = {name: tensor.detach().contiguous() for name, tensor in network.state_dict().items()}
    stored = {name: tensor if name.endswith(_FLOAT32) else tensor.half() for name, tensor in tensors.items()}
    save_file(stored, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    complete = {"format": FORMAT, "shape": network.shape.as_dict(), "sha256": digest, **config}
    (folder / CONFIG).write_text(json.dumps(complete, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
