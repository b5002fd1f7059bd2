"""The model folder of a line labeller: ``model.safetensors`` and ``config.json``, written whole or not at all.

Weights are stored as float16 (statistics and the document head as float32) and run as float32. An ensemble's first
member stands under the plain names and each further one under ``member.N.``, so that a folder of one network looks as
it always did. Nothing in the folder is ever executed or unpickled.
"""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from corpusmill.errors import ConfigError, CorruptModelError
from corpusmill.prox.document_head import DocumentHead
from corpusmill.prox.line_network import LineNetwork, NetworkShape

FORMAT = "corpusmill-line-labeller-1"
"""Version of the model folder's layout and of the features; another one is refused."""
WEIGHTS, CONFIG = "model.safetensors", "config.json"
_HEAD_PREFIX = "document_head."


@dataclass(frozen=True)
class LineLabeller:
    """A loaded labeller.

    Attributes:
        networks: The ensemble's members in eval mode, all of one shape; often only one.
        threshold: A line is removed at this probability and above.
        document_head: Keep or drop of whole documents; None where the model was trained without it.
        config: ``config.json`` as read.
    """

    networks: tuple[LineNetwork, ...]
    threshold: float
    document_head: DocumentHead | None
    config: dict[str, Any]

    @property
    def shape(self) -> NetworkShape:
        """Returns the sizes of each member."""
        return self.networks[0].shape


def load_labeller(model_path: Path) -> LineLabeller:
    """Returns the labeller of a model folder, read from safetensors and JSON only.

    Raises:
        CorruptModelError: The folder is incomplete, of another format, or its weights do not match digest or sizes.
    """
    config = _read_config(model_path)
    weights = model_path / WEIGHTS
    try:
        digest = hashlib.sha256(weights.read_bytes()).hexdigest()
        if digest != config["sha256"]:
            raise CorruptModelError(
                f"{weights.name} of model {model_path.name!r} has sha256={digest!r}, {CONFIG} expects "
                f"{config['sha256']!r}; the copy is damaged or mixed, fetch or train the model again"
            )
        tensors = {name: tensor.float() for name, tensor in load_file(weights).items()}
        head_tensors = {name: tensor.numpy() for name, tensor in _taken(tensors, _HEAD_PREFIX).items()}
        head = DocumentHead.from_tensors(head_tensors, config.get("document_threshold"))
        further = [_taken(tensors, _member_prefix(i)) for i in range(1, int(config.get("members", 1)))]
        networks = tuple(_network(NetworkShape(**config["shape"]), state) for state in (tensors, *further))
        threshold = float(config["threshold"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CorruptModelError(
            f"model {model_path.name!r} cannot be loaded: {error}; expected a folder with {WEIGHTS} and {CONFIG} "
            "as `corpusmill build-refiner` writes it"
        ) from error
    return LineLabeller(networks, threshold, head, config)


def _member_prefix(index: int) -> str:
    return f"member.{index}."


def _taken(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    """Takes the tensors under a prefix out and returns them without it."""
    return {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}


def _network(shape: NetworkShape, state: dict[str, torch.Tensor]) -> LineNetwork:
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn and thrown away
        network = LineNetwork(shape)
    network.load_state_dict(state)
    return network.eval()


def _read_config(model_path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads((model_path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorruptModelError(
            f"model {model_path.name!r} has no readable {CONFIG}: {error}; expected a folder written by "
            "`corpusmill build-refiner --kind labeller`"
        ) from error
    if config.get("format") != FORMAT:
        raise CorruptModelError(
            f"model {model_path.name!r} has format={config.get('format')!r}, expected {FORMAT!r}; train it again"
        )
    return config


def save_labeller(
    folder: Path, networks: Sequence[LineNetwork], head: DocumentHead | None, config: dict[str, Any]
) -> None:
    """Writes a model folder's two files; `published_folder` makes the folder appear whole.

    Args:
        folder: An existing folder.
        networks: The members, all of one shape.
        head: The document head, or None.
        config: What else stands in ``config.json``; format, sizes, thresholds and digest are filled in here.
    """
    stored: dict[str, torch.Tensor] = {}
    for i, network in enumerate(networks):
        for name, tensor in network.state_dict().items():
            exact = name in ("scalar_mean", "scalar_scale")
            stored[(_member_prefix(i) if i else "") + name] = (tensor if exact else tensor.half()).detach().contiguous()
    if head is not None:
        stored |= {_HEAD_PREFIX + name: torch.from_numpy(array) for name, array in head.tensors().items()}
    save_file(stored, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod(0o644)
    complete = {
        "format": FORMAT,
        "shape": networks[0].shape.as_dict(),
        "members": len(networks),
        "document_threshold": None if head is None else head.threshold,
        "sha256": hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest(),
        **config,
    }
    (folder / CONFIG).write_text(json.dumps(complete, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")


def published_folder(out: Path, write: Callable[[Path], None]) -> None:
    """Makes a model folder appear whole: ``write`` fills a folder beside it, which is renamed when it is complete.

    A model that stands there already is replaced; files that this project did not write are kept, see Raises.

    Raises:
        ConfigError: ``out`` exists and is not a labeller's model folder.
    """
    if out.exists() and not (out.is_dir() and (not any(out.iterdir()) or (out / CONFIG).is_file())):
        raise ConfigError(f"out={out.name!r} exists and is no model folder; expected a new path or a model to replace")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    try:
        partial.chmod(0o755)
        write(partial)
        if out.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{out.name}.replaced-", dir=out.parent))
            out.rename(old / out.name)
            partial.rename(out)
            shutil.rmtree(old)
        else:
            partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
